"""OpenAI's released TensorFlow checkpoints as our network: their formulas, their names, and everything amiss."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from igpt.interop.openai import is_openai, read_openai
from igpt.interop.tensorbundle import TensorBundle
from igpt.model.objectives import masked_pixel_loss, next_pixel_loss
from igpt.model.transformer import PixelTransformer
from igpt.system.errors import UserError
from tests.interop import bundles
from tests.reference import numpy_openai

DATA = Path(__file__).parent / "data"
LAYERS, WIDTH, HEADS, POSITIONS, COLOURS, CLASSES = 3, 12, 3, 9, 7, 5


def theirs(*, causal=True, classes=0, layers=LAYERS, width=WIDTH, heads=HEADS, positions=POSITIONS, seed=0):
    """Random weights large enough to matter, under the released names and shapes."""
    head = (heads, width // heads, width)
    shapes = {"wpe": (positions, width), "wte": (COLOURS, width), "wtet": (COLOURS, width), "ln_f/g": (width,)}
    shapes |= {"sos": (width,)} if causal else {}
    shapes |= {"clf/wclf": (classes, width)} if classes else {}
    for layer in range(layers):
        shapes |= {f"h{layer}/ln_{i}/g": (width,) for i in (1, 2)}
        shapes |= {f"h{layer}/attn/{kind}_proj": head for kind in "qkvc"}
        shapes |= {f"h{layer}/mlp/c_fc/w": (width, 4 * width), f"h{layer}/mlp/c_proj/w": (4 * width, width)}
    rng = np.random.default_rng(seed)
    return {f"model/{name}": rng.normal(0.1, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


NAMES = sorted(theirs(classes=CLASSES))
REQUIRED = [name for name in NAMES if name not in ("model/sos", "model/clf/wclf")]


def network(imported):
    model = PixelTransformer(imported.config)
    model.load_state_dict(imported.state)
    return model.eval()


def questions(positions, colours, seed=1):
    """Tokens and masks of four images; every image has a masked pixel."""
    rng = np.random.default_rng(seed)
    masks = rng.random((4, positions)) < 0.3
    masks[:, rng.integers(positions)] = True
    return rng.integers(0, colours, (4, positions)), masks


@torch.no_grad()
def answers(imported, tokens, masks):
    """Logits, loss and class logits (None without a class head) of the imported network."""
    model, tokens, masks = network(imported), torch.from_numpy(tokens), torch.from_numpy(masks)
    masked = None if imported.causal else masks
    logits = model(tokens, causal=imported.causal, masked=masked)
    loss = next_pixel_loss(logits, tokens) if imported.causal else masked_pixel_loss(logits, tokens, masks)
    pooled = model.hidden_states(tokens, causal=imported.causal, masked=masked).mean(1)
    return logits, float(loss), None if imported.class_head is None else pooled @ imported.class_head.T


def refusal(prefix):
    with pytest.raises(UserError) as caught:
        read_openai(prefix)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_a_checkpoint_of_tensorflow_gives_the_logits_and_losses_that_tensorflow_computed(name):
    facts = {key: np.array(value) for key, value in json.loads((DATA / f"{name}.json").read_text()).items()}
    imported = read_openai(DATA / name)
    assert imported.causal == (name == "ar")
    logits, loss, classes = answers(imported, facts["tokens"].astype(np.int64), facts["mask"] == 1)
    np.testing.assert_allclose(logits, facts["logits"], atol=1e-5)
    assert loss == pytest.approx(float(facts["loss"]), abs=1e-5)
    if name == "ar":
        np.testing.assert_allclose(classes, facts["class_logits"], atol=1e-5)
    else:
        assert classes is None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [{}, {"heads": 1}, {"heads": 12}, {"layers": 1, "width": 10, "heads": 2}])
def test_an_imported_network_follows_openais_formulas(tmp_path, causal, shape):
    weights = theirs(causal=causal, classes=CLASSES, **shape)
    imported = read_openai(bundles.write(tmp_path / "model.ckpt-1000", weights, shards=3))
    assert imported.causal == imported.config.sos == causal
    assert imported.config.n_heads == shape.get("heads", HEADS)
    tokens, masks = questions(POSITIONS, COLOURS)
    asked = None if causal else masks
    logits, loss, classes = answers(imported, tokens, masks)
    np.testing.assert_allclose(logits, numpy_openai.logits(weights, tokens, asked), atol=1e-5)
    assert loss == pytest.approx(numpy_openai.loss(weights, tokens, asked), abs=1e-5)
    np.testing.assert_allclose(classes, numpy_openai.class_logits(weights, tokens, asked), atol=1e-5)


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_the_reference_agrees_with_what_tensorflow_computed(name):
    facts = {key: np.array(value) for key, value in json.loads((DATA / f"{name}.json").read_text()).items()}
    entries = read_raw(DATA / name)
    tokens, mask = facts["tokens"].astype(np.int64), None if name == "ar" else facts["mask"]
    np.testing.assert_allclose(numpy_openai.logits(entries, tokens, mask), facts["logits"], atol=1e-6)
    assert numpy_openai.loss(entries, tokens, mask) == pytest.approx(float(facts["loss"]), abs=1e-6)


def read_raw(prefix):
    bundle = TensorBundle(prefix)
    return {name: bundle.tensor(name) for name in bundle.entries if name.startswith("model/") and "Adam" not in name}


def test_what_adam_left_beside_the_weights_changes_nothing(tmp_path):
    weights = theirs(classes=CLASSES)
    plain = read_openai(bundles.write(tmp_path / "plain", weights))
    rng = np.random.default_rng(2)
    slots = {f"{name}/{slot}": rng.normal(size=w.shape) for name, w in weights.items() for slot in ("Adam", "Adam_1")}
    slots |= {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.95), "global_step": np.int64(10**6)}
    full = read_openai(bundles.write(tmp_path / "full", weights | {n: np.array(v) for n, v in slots.items()}, shards=2))
    assert full.config == plain.config
    assert full.state.keys() == plain.state.keys()
    assert all(torch.equal(full.state[name], plain.state[name]) for name in plain.state)
    assert torch.equal(full.class_head, plain.class_head)


def test_leading_ones_of_a_shape_lose_nothing(tmp_path):
    weights = theirs(heads=1)
    wide = {name: values[None] if index % 2 else values for index, (name, values) in enumerate(weights.items())}
    plain, padded = (read_openai(bundles.write(tmp_path / n, w)) for n, w in (("plain", weights), ("padded", wide)))
    assert padded.config == plain.config
    assert all(torch.equal(padded.state[name], plain.state[name]) for name in plain.state)


def test_a_checkpoint_in_half_precision_is_widened(tmp_path):
    weights = theirs()
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    wanted = {name: values.astype(np.float32) for name, values in half.items()}
    found, exact = (read_openai(bundles.write(tmp_path / n, w)) for n, w in (("half", half), ("exact", wanted)))
    assert all(torch.equal(found.state[name], exact.state[name]) for name in exact.state)


def test_imported_tensors_are_float32_in_memory_of_their_own(tmp_path):
    imported = read_openai(bundles.write(tmp_path / "c", theirs(classes=CLASSES)))
    tensors = [*imported.state.values(), imported.class_head]
    before = [tensor.clone() for tensor in tensors]
    (tmp_path / "c.data-00000-of-00001").write_bytes(b"")  # would end the process if they were mapped
    for tensor, value in zip(tensors, before, strict=True):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()
        assert torch.equal(tensor, value)


@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00002", ".data-00001-of-00002"])
def test_the_prefix_and_every_file_of_a_checkpoint_lead_to_it(tmp_path, ending):
    prefix = bundles.write(tmp_path / "model.ckpt-131000", theirs(), shards=2)
    path = prefix.with_name(prefix.name + ending)
    assert is_openai(path)
    assert read_openai(path).source == str(prefix)


@pytest.mark.parametrize("path", ["", "..", "model.ckpt", "other.index", "other", "model", "x" * 300, "a/b/c"])
def test_other_paths_are_no_checkpoint(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    bundles.write(tmp_path / "model.ckpt-131000", theirs())
    assert not is_openai(Path(path))
    assert path in refusal(Path(path))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_tensor_is_named(tmp_path, name):
    weights = theirs()
    del weights[name]
    assert f"lacks the tensor {name}" in refusal(bundles.write(tmp_path / "c", weights))


def test_a_missing_layer_is_named(tmp_path):
    weights = {name: values for name, values in theirs().items() if not name.startswith("model/h1/")}
    assert "lacks the tensor model/h1/ln_1/g" in refusal(bundles.write(tmp_path / "c", weights))


WRONG = {
    "longer": lambda values: np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)]),
    "flat": lambda values: values.reshape(-1) if values.ndim > 1 else values[:, None],
    "empty": lambda values: values[..., :0],
    "turned": lambda values: np.ascontiguousarray(np.swapaxes(np.atleast_2d(values), 0, -1)),
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("model/wpe", "model/wtet")])
@pytest.mark.parametrize("change", WRONG)
def test_a_tensor_of_the_wrong_shape_is_named(tmp_path, name, change):
    weights = theirs(classes=CLASSES)
    weights[name] = WRONG[change](weights[name])
    line = refusal(bundles.write(tmp_path / "c", weights))
    assert f"the tensor {name} has shape" in line
    assert str(weights[name].shape) in line


@pytest.mark.parametrize(
    ("name", "shape"), [("model/wpe", (POSITIONS, 13)), ("model/wpe", (0, 12)), ("model/wpe", (9,))]
)
def test_positions_of_the_wrong_shape_are_named(tmp_path, name, shape):
    line = refusal(bundles.write(tmp_path / "c", theirs() | {name: np.zeros(shape, np.float32)}))
    assert f"the tensor {name} has shape {shape}" in line


def test_palettes_of_two_sizes_are_refused(tmp_path):
    weights = theirs()
    weights["model/wtet"] = weights["model/wtet"][:-1]
    assert "the tensor model/wte has shape (7, 12), where (6, 12)" in refusal(bundles.write(tmp_path / "c", weights))


@pytest.mark.parametrize(
    "name",
    [
        "model/h0/attn/q_proj/b",
        "model/h0/ln_1/b",
        "model/h0/ln_1/g/ExponentialMovingAverage",
        "model/h03/ln_1/g",
        "model/clf/bclf",
        "wte",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
        "zeile\nzwei",
    ],
)
def test_an_unknown_tensor_is_named_and_not_dropped(tmp_path, name):
    weights = theirs() | {name: np.zeros(3, np.int64 if "counter" in name else np.float32)}
    line = refusal(bundles.write(tmp_path / "c", weights))
    assert ("model/h3/ln_1/g" if "h03" in name else ascii(name).strip("'")) in line


def test_a_weight_of_another_type_is_named(tmp_path):
    weights = theirs()
    weights["model/h1/ln_2/g"] = weights["model/h1/ln_2/g"].astype(np.float64)
    assert "the tensor model/h1/ln_2/g has TensorFlow's type 2" in refusal(bundles.write(tmp_path / "c", weights))


def test_another_tensorflow_model_is_refused_by_the_first_tensor_it_lacks(tmp_path):
    prefix = bundles.write(tmp_path / "c", {"dense/kernel": np.zeros((3, 3), np.float32)})
    assert "lacks the tensor model/wpe; it is incomplete, or no checkpoint of iGPT" in refusal(prefix)


@pytest.mark.parametrize("cut", ["index", "data-00000-of-00003", "data-00001-of-00003", "data-00002-of-00003"])
def test_a_file_cut_short_is_named(tmp_path, cut):
    for path in DATA.glob("ar.*"):
        shutil.copy(path, tmp_path)
    file = tmp_path / f"ar.{cut}"
    file.write_bytes(file.read_bytes()[:-1])
    line = refusal(tmp_path / "ar")
    assert f"ar.{cut}" in line
    assert cut == "index" or "the tensor model/" in line
