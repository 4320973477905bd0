"""Layers with positions: features are the mean over tokens, and the attentive probe reads each of them."""

import json

import pytest
import torch
from torch.nn import functional as F

from igpt.families import CPC, MAE, VAE, Flow, MapSource, MoCo, PixelCNN, ProbedSource, SimCLR, open_source
from igpt.model import FeatureOptions
from igpt.probing.methods.attentive import AttentiveRecipe
from igpt.probing.methods.attentive_training import attentive_probe
from igpt.system import Compute
from igpt_datamodules import Digits

KINDS = {
    "VAE": lambda: VAE(8, width=4, latent=3),
    "Flow": lambda: Flow(8, couplings=2, hidden=4),
    "PixelCNN": lambda: PixelCNN(8, width=6, depth=2),
    "MAE": lambda: MAE(8, patch=2, width=8, depth=1, heads=2),
    "SimCLR": lambda: SimCLR(8, width=4),
    "CPC": lambda: CPC(8, patch=2, stride=1, width=4),
    "MoCo": lambda: MoCo(8, width=4),
    "torchvision": lambda: open_source("torchvision:resnet18", weights="random"),
    "timm": lambda: open_source("timm:resnet10t", weights="random"),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_are_the_mean_over_tokens(kind):
    torch.manual_seed(0)
    source = KINDS[kind]().eval()
    images = torch.randint(0, 256, (2, 3, 32 if source.resolution is None else 8, 8), dtype=torch.uint8)
    tokens, features = (of(images, source.layers) for of in (source.tokens, source.features))
    assert max(part.shape[1] for part in tokens) > 1
    for part, mean in zip(tokens, features, strict=True):
        torch.testing.assert_close(part.float().mean(1), mean)


class Somewhere(MapSource):
    """Two layers: brightness of each pixel as it is, and of each 2x2 pixels in three numbers."""

    layers = ("pixels", "blocks")

    def maps(self, images, layers):
        grey = images.float().mean(1, keepdim=True) / 255
        return [{"pixels": grey, "blocks": F.avg_pool2d(grey, 2).expand(-1, 3, -1, -1)}[name] for name in layers]


def test_layers_of_other_numbers_and_widths_of_tokens_are_probed_one_after_another(tmp_path):
    data, module = Digits(batch_size=64), ProbedSource(Somewhere())
    data.prepare_data()
    module.check_resolution((8, 8))
    assert [module.token_shape(layer) for layer in (0, 1)] == [(64, 1), (16, 3)]
    recipe = AttentiveRecipe([0], FeatureOptions(), 10, epochs=1)
    (found,) = attentive_probe(module, data, recipe, tmp_path, Compute("cpu", "32-true"))
    assert found.layer == 0
    assert found.test_accuracy > 0.1


def test_the_command_probes_a_sources_tokens_and_leaves_nothing_to_resume_from(igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--source", "torchvision:resnet18", "--weights", "random", "--data", "Digits", "--layers", "0,1,4"]
    code, out, err = igpt("probe", *words, "--method", "attentive", "--epochs", 1, "--out", "found")
    assert code == 0, err
    assert "attentive: best layer" in out
    probe = json.loads((tmp_path / "found" / "probe.json").read_text())["methods"]["attentive"]
    assert [row["layer"] for row in probe["layers"]] == [0, 1, 4]
    assert all(row["test_accuracy"] > 0.3 for row in probe["layers"])
    assert not (tmp_path / "found" / "attentive").exists()


class Vector(Somewhere):
    def maps(self, images, layers):
        return [part.mean((2, 3)) for part in super().maps(images, layers)]


def test_one_vector_an_image_is_one_token():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert [tuple(part.shape) for part in Vector().tokens(images, ("pixels", "blocks"))] == [(2, 1, 1), (2, 1, 3)]
