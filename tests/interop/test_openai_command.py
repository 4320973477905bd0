"""`igpt import` of TensorFlow's checkpoints: a checkpoint of ours, or one line and nothing left behind."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from igpt.interop.crc32c import masked_crc32c
from igpt.modules.loading import load
from tests.interop import bundles
from tests.interop.test_tensorbundle import everything

DATA = Path(__file__).parent / "data"


@pytest.fixture
def palette(tmp_path):
    path = tmp_path / "five.npy"
    np.save(path, np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32))
    return path


def released(name):
    """The weights of one of the genuine checkpoints, to be changed and written anew."""
    return {key: value for key, value in everything(DATA / name).items() if key.startswith("model/")}


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_an_imported_checkpoint_gives_the_logits_that_tensorflow_computed(igpt, tmp_path, palette, name):
    out = tmp_path / "imported.ckpt"
    code, _, err = igpt("import", "--path", DATA / name, "--palette", palette, "--out", out)
    assert code == 0, err
    facts = {key: np.array(value) for key, value in json.loads((DATA / f"{name}.json").read_text()).items()}
    tokens, masks = torch.from_numpy(facts["tokens"]).long(), torch.from_numpy(facts["mask"]).bool()
    network = load(out).module.transformer
    with torch.no_grad():
        logits = network(tokens, causal=name == "ar", masked=None if name == "ar" else masks)
    np.testing.assert_allclose(logits, facts["logits"], atol=1e-5)


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("lacks the tensor model/h1/attn/c_proj", lambda w: without(w, "model/h1/attn/c_proj")),
        ("the tensor model/ln_f/g has shape (5,)", lambda w: w | {"model/ln_f/g": w["model/ln_f/g"][:5]}),
        ("holds the tensor model/h1/attn/b", lambda w: w | {"model/h1/attn/b": w["model/ln_f/g"]}),
    ],
)
def test_a_strange_checkpoint_is_one_line_and_leaves_nothing(igpt, tmp_path, palette, words, change):
    prefix = bundles.write(tmp_path / "ckpt", change(released("bert")))
    refused(igpt, tmp_path, prefix, palette, words)


@pytest.mark.parametrize(
    ("ending", "words"), [("index", "bert.index"), ("data-00000-of-00001", "the tensor model/wtet ends at byte")]
)
def test_a_checkpoint_cut_short_is_one_line_and_leaves_nothing(igpt, tmp_path, palette, ending, words):
    for path in DATA.glob("bert.*"):
        shutil.copy(path, tmp_path)
    file = tmp_path / f"bert.{ending}"
    file.write_bytes(file.read_bytes()[:-7])
    refused(igpt, tmp_path, tmp_path / "bert", palette, words)


def test_a_damaged_weight_is_one_line_and_leaves_nothing(igpt, tmp_path, palette):
    for path in DATA.glob("bert.*"):
        shutil.copy(path, tmp_path)
    file = tmp_path / "bert.data-00000-of-00001"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1  # of the last tensor: all others were read by then
    file.write_bytes(damaged)
    refused(igpt, tmp_path, tmp_path / "bert", palette, "checksum of the tensor model/wtet is wrong")


def refused(igpt, home, prefix, palette, words):
    before = sorted(home.rglob("*"))
    code, _, err = igpt("import", "--path", prefix, "--palette", palette, "--out", home / "out" / "imported.ckpt")
    lines = [line for line in err.splitlines() if line.startswith("igpt")]
    assert code == 2, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert words in lines[0], lines[0]
    assert sorted(home.rglob("*")) == before


def hollow(prefix, shapes):
    """A checkpoint of zeros that takes next to no room on disk; the checksums are the reader's own. Returns bytes."""
    entries, offset, checksums = {}, 0, {}
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        crc = checksums.setdefault(size, masked_crc32c(np.zeros(size, np.uint8)))
        entries[name] = {"dtype": 1, "shape": shape, "shard": 0, "offset": offset, "size": size, "crc": crc}
        offset += size
    pairs = [(b"", bundles.header()), *((name.encode(), bundles.entry(**e)) for name, e in sorted(entries.items()))]
    prefix.with_name(f"{prefix.name}.index").write_bytes(bundles.table(pairs))
    with open(prefix.with_name(f"{prefix.name}.data-00000-of-00001"), "wb") as file:
        file.truncate(offset)
    return offset


def shapes_of_large():
    width, shapes = 1536, {"model/wpe": [1024, 1536], "model/sos": [1536], "model/ln_f/g": [1536]}
    shapes |= {"model/wte": [512, width], "model/wtet": [512, width]}
    for layer in range(48):
        shapes |= {f"model/h{layer}/ln_{i}/g": [width] for i in (1, 2)}
        shapes |= {f"model/h{layer}/attn/{kind}_proj": [16, 96, width] for kind in "qkvc"}
        shapes |= {f"model/h{layer}/mlp/c_fc/w": [width, 4 * width], f"model/h{layer}/mlp/c_proj/w": [4 * width, width]}
    return shapes


@pytest.mark.slow
def test_the_large_model_is_imported_in_less_than_eight_gibibytes(tmp_path):
    size = hollow(tmp_path / "large", shapes_of_large())
    assert size == 4 * 1_362_250_752
    np.save(tmp_path / "palette.npy", np.random.default_rng(0).uniform(-1, 1, (512, 3)).astype(np.float32))
    program = (
        "import resource, sys\n"
        "from igpt.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    options = ["--path", tmp_path / "large", "--palette", tmp_path / "palette.npy", "--out", tmp_path / "out.ckpt"]
    command = [sys.executable, "-c", program, "import", *map(str, options)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (tmp_path / "out.ckpt").stat().st_size > size
    finally:
        (tmp_path / "out.ckpt").unlink(missing_ok=True)  # five gigabytes that nobody needs any more
    assert size < 1024 * int(run.stdout.splitlines()[-1]) < 8 * 2**30
