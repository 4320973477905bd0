"""The contract of a source: what keeps it, what the contract test finds, and igpt's own checkpoints as sources."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from igpt.families import FeatureSource, ProbedSource, open_source
from igpt.model import FeatureOptions
from igpt.modules import load
from igpt.probing.methods import METHODS
from igpt.system import UserError
from igpt.testing import check_source


class Means(FeatureSource):
    """Mean colours, and a linear map of them."""

    layers = ("means", "mapped")

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 5)
        nn.init.ones_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def features(self, images, layers):
        means = images.float().mean((2, 3)) / 255
        return [{"means": means, "mapped": self.map(means)}[name] for name in layers]


def test_a_source_that_keeps_the_contract_passes():
    check_source(Means)


class InBatch(Means):
    def features(self, images, layers):
        return [part - part.mean(0) for part in super().features(images, layers)]


class InOrder(Means):
    def features(self, images, layers):
        return super().features(images, sorted(layers))


class Drawn(Means):
    def features(self, images, layers):
        return [part + torch.rand(()) for part in super().features(images, layers)]


class Writes(Means):
    def features(self, images, layers):
        found = super().features(images, layers)
        images.zero_()
        return found


class Likely(Means):
    def log_likelihood(self, images):
        return torch.ones(len(images))


class LikelyTogether(Means):
    def log_likelihood(self, images):
        return -torch.ones(())


class Samples(Means):
    def sample(self, num, seed=0):
        return torch.rand(num, 3, 32, 32)


class SamplesAnew(Means):
    def sample(self, num, seed=0):
        return torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8)


class TokensInOrder(Means):
    def tokens(self, images, layers):
        return [part.unsqueeze(1) for part in self.features(images, sorted(layers))]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TokensInOrder, "tokens.* must not hang on the order"),
        (InBatch, "must not hang on what else is in the batch"),
        (InOrder, "order of images and layers"),
        (Drawn, "must not hang"),
        (Writes, "leave the images as they are"),
        (Likely, "at most 0"),
        (LikelyTogether, r"not \(3,\)"),
        (Samples, "uint8"),
        (SamplesAnew, "same for the same seed"),
        (nn.Identity, "FeatureSource"),
    ],
)
def test_the_contract_test_says_what_is_broken(kind, words):
    with pytest.raises(AssertionError, match=words):
        check_source(kind)


class FlatTokens(Means):
    def tokens(self, images, layers):
        return self.features(images, layers)


def test_tokens_without_positions_are_one_line():
    with pytest.raises(UserError, match=r"tokens\(\) of layer 'means' are float32 \(3, 3\), not floating \(3, T, D\)"):
        check_source(FlatTokens)


def test_the_attentive_probe_of_a_source_without_tokens_is_refused():
    options = SimpleNamespace(concat=None, features=FeatureOptions())
    with pytest.raises(UserError, match="--method attentive reads tokens, and Means gives one vector an image"):
        METHODS["attentive"].check(options, ProbedSource(Means()))


def test_a_checkpoint_of_ar_is_a_source_with_a_likelihood_and_samples(digits_run):
    source = open_source(str(digits_run.checkpoint))
    check_source(lambda: open_source(str(digits_run.checkpoint)))
    assert source.layers == ("0", "1", "2", "3")
    assert source.offers("log_likelihood")
    core = load(digits_run.checkpoint).module.core
    images = core.decode(core.sample(2))
    tokens = core.encode(images)
    with torch.no_grad():
        expected = -core.loss(tokens, torch.Generator()) * tokens.numel()
    assert float(source.log_likelihood(images).sum()) == pytest.approx(float(expected), rel=1e-5)


def test_a_checkpoint_of_bert_is_a_source_without_a_likelihood(digits_bert_run):
    check_source(lambda: open_source(str(digits_bert_run.checkpoint)))
    assert not open_source(str(digits_bert_run.checkpoint)).offers("log_likelihood")


def test_a_name_of_nothing_is_one_line_with_the_names_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--source nothing: there is no source of that name \(.*torchvision.*\)"):
        open_source("nothing")
