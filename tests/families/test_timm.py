"""Networks of timm as sources: their features are those of the modules that timm names, and nothing is downloaded."""

import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from igpt.families import open_source
from igpt.system import UserError
from igpt.testing import check_source

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_features_are_the_means_of_what_the_named_modules_give_with_the_weights_of_the_file(tmp_path):
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    seen = {}
    for name in ("act1", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda _, given, maps, name=name: seen.update({name: maps.mean((2, 3))})
        )
    with torch.no_grad():
        network((IMAGES / 255 - mean) / deviation)
        for file in ("w.pth", "w.safetensors"):
            source = open_source("timm:resnet10t", weights=str(tmp_path / file))
            assert source.layers == tuple(seen)
            for name, part in zip(source.layers, source.features(IMAGES, source.layers), strict=True):
                torch.testing.assert_close(part, seen[name], rtol=1e-4, atol=1e-5)


def test_a_transformer_of_one_size_sees_resized_pictures_and_gives_means_over_patches_of_each_block(monkeypatch):
    name = "vit_tiny_patch16_224"
    source = open_source(f"timm:{name}", weights="random")
    seen = []
    for block in source.network.blocks:
        block.register_forward_hook(lambda _, given, x: seen.append(x[:, 1:].mean(1)))  # the first is the class token
    large = torch.nn.functional.interpolate(IMAGES.float(), (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        source.network(large / 127.5 - 1)  # its colours are -1..1
        expected = seen[:12]
        found = source.features(IMAGES, source.layers)
    assert source.layers == tuple(f"blocks.{number}" for number in range(12))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_untrained_networks_keep_the_contract_and_leave_the_randomness_of_others_alone(name):
    state = torch.get_rng_state()
    check_source(lambda: open_source(f"timm:{name}", weights="random"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("resnet10t", None, "needs --weights FILE, a state dict's, or --weights random"),
        ("resnet10t", "gone.pth", "--weights gone.pth does not exist"),
        ("resnet17", "random", "timm has no such network"),
        ("hf-hub:timm/resnet10t.c3_in1k", "random", "timm has no such network"),
        ("", "random", "timm has no such network"),
    ],
)
def test_what_cannot_be_opened_is_one_line(name, weights, words):
    with pytest.raises(UserError, match=words) as error:
        open_source(f"timm:{name}", **({} if weights is None else {"weights": weights}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("library", "source", "extra"),
    [("timm", "timm:resnet10t", "families"), ("transformers", "huggingface:{folder}", "interop")],
)
def test_without_its_library_one_line_says_what_to_install(library, source, extra, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs {library}; install it with: pip install 'igpt\[{extra}\]'"):
        open_source(source.format(folder=tmp_path))
