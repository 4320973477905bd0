"""Attentive probes beside a frozen network, on the digits."""

from types import SimpleNamespace

import pytest
import torch

from igpt.model.features import FeatureOptions
from igpt.modules import BERT, Autoregressive
from igpt.probing.methods.attentive import AttentiveRecipe
from igpt.probing.methods.attentive_training import FILE, attentive_probe, epochs_of
from igpt.system.errors import UserError
from igpt.system.hardware import Compute
from tests.modules.test_layer_probe import PowerCutError, counted, cut_after, digits, network

CPU = Compute("cpu", "32-true")


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """The state is written after every epoch, however short they are."""
    monkeypatch.setattr("igpt.probing.methods.unfinished.EVERY_S", 0.0)


def probe(module, folder, layers=(0, 2), how=FeatureOptions(), keep=True, changing=False, **options):
    recipe = AttentiveRecipe(list(layers), how, 10, **{"epochs": 4, "rates": (0.01, 0.001), "queries": 4} | options)
    return attentive_probe(module, digits(), recipe, folder, CPU, changing, lambda *_: keep)


def saved(folder):
    return torch.load(folder / FILE, weights_only=True)["state_dict"]


@pytest.mark.parametrize(("causal", "masks"), [(True, 0), (False, 0), (False, 2)])
def test_tokens_are_the_states_whose_means_are_the_features(causal, masks):
    module = network(Autoregressive if causal else BERT)
    tokens = module.encode(next(iter(digits().loader("val")))[0])
    how = FeatureOptions(masks=masks)
    each, means = (module.features(tokens, [2, 0], how, torch.Generator().manual_seed(0), pooled=pooled)
                   for pooled in (False, True))  # fmt: skip
    assert each.shape == (2, len(tokens), 64, 16)
    torch.testing.assert_close(each.mean(2), means)


def test_the_network_runs_once_over_each_image_where_its_tokens_are_kept_and_every_epoch_where_not(tmp_path):
    module = network()
    passes = counted(module)
    kept = probe(module, tmp_path / "kept", keep=True)
    train, val, test = 4, 3, 6  # batches of 64; the last of training is short
    assert len(passes) == train + val + test
    del passes[:]
    streamed = probe(module, tmp_path / "streamed", keep=False)
    assert len(passes) == train + 4 * (train - 1) + val + test  # statistics, then whole batches
    for one, other in zip(kept, streamed, strict=True):
        assert one.tried == pytest.approx(other.tried, abs=0.02)
    for name, value in saved(tmp_path / "kept").items():
        torch.testing.assert_close(value, saved(tmp_path / "streamed")[name], atol=2e-3, rtol=2e-2)


def test_the_rate_of_best_validation_accuracy_is_tested_and_all_are_told(tmp_path):
    results = probe(network(), tmp_path)
    assert [result.layers for result in results] == [(0,), (2,)]
    for result in results:
        assert set(result.tried) == {0.01, 0.001}
        assert result.val_accuracy == max(result.tried.values()) == result.tried[result.chosen]
        assert result.test_accuracy > 0.12  # of ten classes, after twelve steps


@pytest.mark.parametrize(("kind", "how", "keep"), [
    (Autoregressive, FeatureOptions(), True),
    (Autoregressive, FeatureOptions(), False),
    (BERT, FeatureOptions(masks=1), False),
])  # fmt: skip
def test_an_interrupted_probe_goes_on_and_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, kind, how, keep):
    module, options = network(kind), {"how": how, "keep": keep, "changing": how.masks > 0}
    whole = probe(module, tmp_path / "whole", **options)
    hook = cut_after(module, 5 if keep else 4 + 2 * 3 + 1)  # in validation, all epochs done; or in the third epoch
    with pytest.raises(PowerCutError):
        probe(module, tmp_path / "cut", **options)
    hook.remove()
    assert probe(module, tmp_path / "cut", **options) == whole
    assert all(torch.equal(value, saved(tmp_path / "cut")[name]) for name, value in saved(tmp_path / "whole").items())


def test_kept_tokens_go_on_from_the_epoch_that_was_written_last(tmp_path, monkeypatch):
    module, whole = network(), probe(network(), tmp_path / "whole")
    epochs = iter(range(2))
    order = type(digits()).training_order.images_at

    def cut(self, epoch, *places):
        if epoch == 2 and next(epochs, None) == 0:
            raise PowerCutError
        return order(self, epoch, *places)

    monkeypatch.setattr(type(digits()).training_order, "images_at", cut)
    with pytest.raises(PowerCutError):
        probe(module, tmp_path / "cut")
    assert torch.load(tmp_path / "cut" / FILE, weights_only=True)["epochs_done"] == 2
    assert probe(module, tmp_path / "cut") == whole


def test_an_unfinished_probe_with_other_queries_is_one_line(tmp_path):
    module = network()
    hook = cut_after(module, 4 + 3 + 1)
    with pytest.raises(PowerCutError):
        probe(module, tmp_path, keep=False)
    hook.remove()
    with pytest.raises(UserError, match=f"{FILE}: an unfinished probe with another queries; finish it"):
        probe(module, tmp_path, keep=False, queries=8)


@pytest.mark.parametrize(("given", "steps", "epochs"), [(None, 20, 23), (None, 400, 15), (3, 20, 3)])
def test_unless_it_is_told_it_takes_fifteen_epochs_or_as_many_as_make_450_steps(given, steps, epochs):
    data = SimpleNamespace(steps_per_epoch=lambda: steps)
    assert epochs_of(SimpleNamespace(options=SimpleNamespace(epochs=given), data=data)) == epochs
