"""Weights of `transformers` in our network: the same numbers, pixel by pixel and layer by layer."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_images
from transformers import ImageGPTForImageClassification, ImageGPTImageProcessor, ImageGPTModel

from igpt.interop.alignment import aligned_nll
from igpt.interop.huggingface import read_huggingface
from igpt.interop.imagegpt import processor_config, to_huggingface
from igpt.model.sampling import generate
from igpt.model.transformer import PixelTransformer
from igpt.modules.loading import load
from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from tests.interop.models import SHAPES, begun, colors, save, theirs


def network(imported):
    model = PixelTransformer(imported.config)
    model.load_state_dict(imported.state)
    return model.eval()


def some_tokens(model, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.vocab_size - 1, (batch, model.config.n_positions), generator=generator)


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """Their model, ours with its weights, tokens, and the numbers that theirs gives for the sos-aligned sequence."""
    model = theirs(request.param)
    ours = network(read_huggingface(save(model, tmp_path_factory.mktemp("theirs"))))
    tokens = some_tokens(model)
    with torch.inference_mode():
        found = model(begun(tokens, model.config.vocab_size - 1), output_hidden_states=True)
    return model, ours, tokens, found


def test_logits_agree_on_the_sequence_that_begins_with_sos(pair):
    _, ours, tokens, found = pair
    with torch.inference_mode():
        logits = ours(tokens, causal=True)
    assert found.logits.std() > 0.5
    torch.testing.assert_close(logits, found.logits, atol=1e-4, rtol=0)


def test_hidden_states_of_every_layer_agree(pair):
    _, ours, tokens, found = pair
    n_layers, n_positions = ours.config.n_layers, ours.config.n_positions
    with torch.inference_mode():
        every = torch.eye(n_positions)  # pool nothing
        states = ours.features(tokens, list(range(n_layers)), causal=True, normed=False, pool=every)
        final = ours.hidden_states(tokens, causal=True)
    assert len(found.hidden_states) == n_layers + 1
    for state, expected in zip(states, found.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state.view_as(expected), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(final, found.hidden_states[-1], atol=1e-4, rtol=0)


def test_the_likeliest_colours_in_turn_are_the_same_picture(pair):
    model, ours, tokens, _ = pair
    n_positions = ours.config.n_positions
    for known in (0, 3) if n_positions <= 64 else (n_positions - 48,):  # 1,024 steps would say no more
        prefix = tokens[:, :known]
        start = torch.cat([torch.full_like(tokens[:, :1], model.config.vocab_size - 1), prefix], 1)
        expected = model.generate(start, max_length=n_positions + 1, do_sample=False)[:, 1:]
        assert len(expected[:, known:].unique()) > 1
        assert torch.equal(generate(ours, prefix, top_k=1), expected)


def test_the_shifted_loss_is_the_one_that_their_model_gives_for_labels(pair):
    model, ours, tokens, found = pair
    with torch.inference_mode():
        expected = model(input_ids=tokens, labels=tokens).loss
        aligned = torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), tokens.flatten())
    shifted = aligned_nll(ours, tokens, "huggingface")
    assert shifted.shape == (len(tokens), tokens.shape[1] - 1)
    torch.testing.assert_close(shifted.mean(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(aligned_nll(ours, tokens).mean(), aligned, atol=1e-4, rtol=0)
    assert abs(float(expected - aligned)) > 1e-3


def test_there_and_back_is_bit_identical(pair):
    model, ours, _, _ = pair
    back = to_huggingface(dict(ours.state_dict()), ours.config)
    expected = model.state_dict()
    assert set(back) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
def test_a_bias_that_is_not_zero_is_refused_by_its_name_and_largest_value(shape, kind, tmp_path):
    model = theirs(shape)
    name = f"transformer.h.1.{kind}.bias"
    with torch.no_grad():
        model.get_parameter(name)[3] = -0.25
    with pytest.raises(UserError, match=f"{name} is not zero .up to 0.25."):
        read_huggingface(save(model, tmp_path))


def same(imported, model):
    expected = to_huggingface(dict(imported.state), imported.config, imported.class_head)
    return all(torch.equal(expected[name], tensor.float()) for name, tensor in model.state_dict().items())


def test_weights_in_several_files_are_put_together(tmp_path):
    model = theirs()
    save(model, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert same(read_huggingface(tmp_path), model)


@pytest.mark.parametrize("parts", [1, 2])
def test_bin_files_are_read_too(tmp_path, parts):
    model = theirs()
    save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = list(model.state_dict().items())
    names = ["pytorch_model.bin"] if parts == 1 else [f"part-{i}.bin" for i in range(parts)]
    for i, name in enumerate(names):
        torch.save(dict(state[i::parts]), tmp_path / name)
    if parts > 1:
        places = {key: names[i % parts] for i, (key, _) in enumerate(state)}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(read_huggingface(tmp_path), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_loses_nothing(tmp_path, dtype):
    model = theirs().to(dtype)
    imported = read_huggingface(save(model, tmp_path))
    assert {tensor.dtype for tensor in imported.state.values()} == {torch.float32}
    assert same(imported, model)


def test_the_causal_masks_that_older_files_hold_are_no_weights(tmp_path):
    model = theirs()
    file = save(model, tmp_path) / "model.safetensors"
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool).tril() for i in range(5)}
    masks |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(5)}
    save_file(load_file(file) | masks, file)
    assert same(read_huggingface(tmp_path), model)


def test_a_class_head_beside_the_other_is_kept(tmp_path):
    model = theirs()
    file = save(model, tmp_path) / "model.safetensors"
    head = torch.randn(10, 24)
    save_file(load_file(file) | {"score.weight": head}, file)
    assert torch.equal(read_huggingface(tmp_path).class_head, head)


def test_no_imported_tensor_keeps_a_file_mapped(tmp_path):
    imported = read_huggingface(save(theirs(), tmp_path))
    for name, tensor in imported.state.items():
        assert tensor.is_contiguous(), name
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, name


def photos_at_32():
    """32x32 pictures uint8 (B, 3, 32, 32): cut from two photographs, and noise."""
    photos = np.stack([photo[:416, :640] for photo in load_sample_images().images])
    cut = photos.reshape(2, 13, 32, 20, 32, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 32, 32, 3)
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    return torch.from_numpy(np.concatenate([cut, noise])).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("clusters", "ties"),  # of 598,016 pixels; docs/interop.md names both numbers
    [
        (colors(512), 0),
        (np.random.default_rng(1).integers(0, 256, (512, 3)).astype(np.float32) / 127.5 - 1, 769),
    ],
    ids=["any colours", "colours of 8 bits, which pixels of 8 bits lie right between"],
)
def test_their_processor_and_our_palette_give_the_same_tokens_but_for_ties(tmp_path, clusters, ties):
    palette = Palette(torch.from_numpy(clusters))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor_config(palette.colors, 32)))
    processor = ImageGPTImageProcessor.from_pretrained(tmp_path)
    assert torch.equal(torch.as_tensor(processor.clusters), palette.colors)
    images = photos_at_32()
    expected = processor(list(images), return_tensors="pt").input_ids
    tokens = palette.encode(images)
    differ = (tokens != expected).nonzero()
    assert len(differ) <= 1.2 * ties  # which of two equally near ones, float32 decides
    pixels = images.flatten(2).movedim(1, -1).double() / 127.5 - 1
    exact = palette.colors.double()
    for image, position in differ:  # what differs are colours as near as their float32 can tell
        squared = (exact - pixels[image, position]).square().sum(1)
        assert abs(squared[tokens[image, position]] - squared[expected[image, position]]) < 1e-6
        assert squared[tokens[image, position]] < squared.min() + 1e-6


def randomly(kind, folder, **options):
    """A model of another class with the weights of `theirs`, saved, and the same model."""
    model = kind(theirs().config if not options else type(theirs().config)(**SHAPES["deep"], **options)).eval()
    backbone = getattr(model, "transformer", model)
    backbone.load_state_dict(theirs().transformer.state_dict())
    return save(model, folder), model


def test_a_classifier_becomes_a_joint_model_with_the_same_logits(igpt, tmp_path):
    torch.manual_seed(3)
    folder, model = randomly(ImageGPTForImageClassification, tmp_path / "theirs", num_labels=5)
    code, out, err = igpt("import", "--path", folder, "--out", tmp_path / "x.ckpt")
    assert code == 0, err
    assert "5 classes, no head for pixels" in out
    joint = load(tmp_path / "x.classes.ckpt").module
    tokens = some_tokens(model)
    with torch.inference_mode():
        expected = model(begun(tokens, model.config.vocab_size - 1)).logits
        logits = joint.classifier(joint.core.transformer.hidden_states(tokens, causal=True).mean(1))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_a_backbone_alone_gives_its_features_and_a_head_of_zeros(igpt, tmp_path):
    folder, model = randomly(ImageGPTModel, tmp_path / "theirs")
    code, out, err = igpt("import", "--path", folder, "--out", tmp_path / "x.ckpt")
    assert code == 0, err
    assert "no head for pixels (zeros" in out
    ours = load(tmp_path / "x.ckpt").module.core.transformer
    tokens = some_tokens(model)
    with torch.inference_mode():
        expected = model(begun(tokens, model.config.vocab_size - 1)).last_hidden_state
        torch.testing.assert_close(ours.hidden_states(tokens, causal=True), expected, atol=1e-4, rtol=0)
    assert not ours.head.weight.count_nonzero()
