"""Folders of Hugging Face's transformers as sources: hidden states, preprocessing, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    ImageGPTConfig,
    ImageGPTModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)  # fmt: skip

from igpt.families import open_source
from igpt.system import UserError
from igpt.testing import check_source

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def vit():
    return ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    )


def resnet():
    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))


@pytest.fixture
def folder(tmp_path):
    """A function that saves a network, every weight of which is drawn, and gives the network and its folder."""

    def saved(make):
        torch.manual_seed(4)
        network = make().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        network.save_pretrained(tmp_path)
        return network, tmp_path

    return saved


@pytest.mark.parametrize(("make", "places", "widths"), [(vit, 1, [16, 16, 16]), (resnet, (2, 3), [8, 8, 16])])
def test_features_are_the_means_of_the_networks_hidden_states(make, places, widths, folder):
    network, path = folder(make)
    with torch.no_grad():
        states = network(pixel_values=IMAGES / 127.5 - 1, output_hidden_states=True).hidden_states
        source = open_source(f"huggingface:{path}")
        found = source.features(IMAGES, source.layers)
    assert source.layers == ("0", "1", "2")
    assert [part.shape[1] for part in found] == widths
    for one, other in zip(found, states, strict=True):
        torch.testing.assert_close(one, other.mean(places), rtol=1e-4, atol=1e-5)
    state = torch.get_rng_state()
    check_source(lambda: open_source(f"huggingface:{path}"))
    assert torch.equal(torch.get_rng_state(), state)


def test_size_and_colours_are_those_that_the_processor_of_the_folder_makes(folder):
    network, path = folder(vit)
    how = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    processor = ViTImageProcessor(**how)
    processor.save_pretrained(path)
    source = open_source(f"huggingface:{path}")
    for side, tolerance in ((32, 1e-5), (48, 0.01)):  # PIL rounds resized pictures to bytes
        ramp = (torch.arange(side) * 5).to(torch.uint8)
        picture = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.expand(side, side)])
        given = processor(Image.fromarray(picture.permute(1, 2, 0).numpy()), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            states = network(pixel_values=given, output_hidden_states=True).hidden_states
            found = source.features(picture[None], source.layers)
        for one, other in zip(found, states, strict=True):
            torch.testing.assert_close(one, other.mean(1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "config.json").unlink(), "there is no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "is no JSON"),
        (lambda path: edit(path, auto_map={"AutoModel": "x.Y"}), "code of its own, which igpt does not run"),
        (lambda path: edit(path, model_type="nothing"), "cannot be opened"),
        (lambda path: edit(path, num_hidden_layers=3), "has no weights of"),
        (lambda path: (path / "model.safetensors").write_bytes(b"no weights"), "cannot be opened"),
        (lambda path: (path / "model.safetensors").unlink(), "cannot be opened"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(change, words, folder):
    _, path = folder(vit)
    change(path)
    with pytest.raises(UserError, match=words) as error:
        open_source(f"huggingface:{path}")
    assert "\n" not in str(error.value)


def edit(path, **values):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageGPTModel(ImageGPTConfig(n_embd=8, n_layer=1, n_head=1, n_positions=4)), "use igpt import"),
        (
            lambda: BertModel(
                BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
            ),
            "takes no pictures",
        ),
    ],
)
def test_a_model_of_other_things_than_pictures_is_one_line(make, words, folder):
    _, path = folder(make)
    with pytest.raises(UserError, match=words):
        open_source(f"huggingface:{path}")
