"""Extraction of features by `igpt probe`: one pass, reused where it fits, whole or not at all, in little memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch

import igpt as api
from igpt.cli import main
from igpt_datamodules import Digits
from tests.conftest import REPO

QUICK = ["--method", "knn", "--layers", "1,3"]
WRITTEN = ["features", "layers.png", "probe.csv", "probe.json"]


def files(folder):
    """Bytes and time of the last change of each file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def contents(folder):
    return {name: content for name, (content, _) in files(folder).items()}


@pytest.fixture(scope="module")
def made(digits_run, tmp_path_factory):
    """A folder in which `igpt probe` was run once, and what it printed."""
    out, printed = tmp_path_factory.mktemp("made") / "out", StringIO()
    with redirect_stdout(printed):
        assert main(["probe", "--ckpt", str(digits_run.checkpoint), *QUICK, "--out", str(out)]) == 0
    return out, printed.getvalue()


@pytest.fixture
def probe(igpt, digits_run, made, tmp_path, monkeypatch):
    """The same again, in a folder with a copy of what the first one wrote and nothing else."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made[0], "out")
    return lambda *words, ckpt=digits_run.checkpoint: igpt("probe", "--ckpt", ckpt, *QUICK, "--out", "out", *words)


def test_the_store_holds_the_features_of_the_transformer_itself(probe, digits_run, tmp_path):
    code, out, err = probe("--dtype", "float32", "--store", "exact")
    assert code == 0, err
    assert "features of 2 layers: exact, " in out
    module, data = api.load(digits_run.checkpoint).module, Digits()
    for name in ("val", "test"):
        images = torch.stack([image for image, _ in data.images(name)])
        with torch.no_grad():
            expected = module.transformer.features(module.encode(images), [1, 3], causal=True).numpy()
        np.testing.assert_allclose(np.load(tmp_path / "exact" / f"{name}_features.npy"), expected, atol=1e-5)
        labels = np.load(tmp_path / "exact" / f"{name}_labels.npy")
        np.testing.assert_array_equal(labels, np.asarray(data.images(name).labels))
    for name, content in contents(tmp_path / "exact").items():
        if name.endswith("labels.npy"):
            assert content == (tmp_path / "out" / "features" / name).read_bytes()


def test_a_second_probe_reuses_the_store_and_leaves_every_file_untouched(probe, made, tmp_path):
    assert "written" in made[1]
    assert "reused" not in made[1]
    before = files(tmp_path / "out" / "features")
    for words in (["--layers", "3"], ["--standardise", "false"], ["--data", "Digits", "--data.batch_size", 7], []):
        code, out, err = probe(*words)
        assert code == 0, err
        assert "reused" in out
        assert "written" not in out
        assert files(tmp_path / "out" / "features") == before
    first, second = (json.loads((folder / "probe.json").read_text()) for folder in (made[0], tmp_path / "out"))
    assert {**first, "command": ""} == {**second, "command": ""}


OTHER = [["--norm", "raw"], ["--grid", 2], ["--dtype", "float32"], ["--layers", "1,2"], ["--precision", "bf16-mixed"],
         ["--data", "Digits", "--data.seed", 5], ["--data", "Digits", "--data.split.val_share", 0.2]]  # fmt: skip


@pytest.mark.parametrize("words", OTHER, ids=lambda words: words[-2].strip("-"))
def test_a_store_of_ones_own_that_holds_something_else_is_refused(probe, tmp_path, words):
    (tmp_path / "out" / "features").rename(tmp_path / "mine")
    before = files(tmp_path / "mine")
    code, _, err = probe("--store", "mine", *words)
    assert code == 2
    assert err.count("\n") == 1
    assert "--store mine holds features of something else" in err
    assert files(tmp_path / "mine") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("words", [["--norm", "raw"], ["--layers", "1,2"]], ids=lambda words: words[0].strip("-"))
def test_in_the_default_place_it_is_replaced(probe, tmp_path, words):
    before = contents(tmp_path / "out" / "features")
    code, out, err = probe(*words)
    assert code == 0, err
    assert "written" in out
    assert contents(tmp_path / "out" / "features")["manifest.json"] != before["manifest.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == WRITTEN


def test_a_store_of_another_checkpoint_is_refused_or_replaced_too(probe, digits_run, tmp_path):
    earlier = digits_run.folder / "checkpoints" / "step=0000020.ckpt"
    before = contents(tmp_path / "out" / "features")
    code, _, err = probe("--store", "out/features", ckpt=earlier)
    assert code == 2
    assert "--store out/features holds features of something else (differs in checkpoint_sha256)" in err
    assert contents(tmp_path / "out" / "features") == before
    assert "written" in probe(ckpt=earlier)[1]
    after = contents(tmp_path / "out" / "features")
    assert after["test_features.npy"] != before["test_features.npy"]
    assert after["test_labels.npy"] == before["test_labels.npy"]


def test_a_damaged_store_is_not_replaced_without_being_asked(probe, tmp_path):
    path = tmp_path / "out" / "features" / "test_features.npy"
    path.write_bytes(path.read_bytes()[:-3])
    before = files(tmp_path / "out" / "features")
    code, _, err = probe("--standardise", "false")  # what was measured before would be kept, and no feature read
    assert code == 2
    assert "--store out/features: test_features.npy is" in err
    assert files(tmp_path / "out" / "features") == before


def test_masks_make_a_store_belong_to_its_batch_size_and_are_the_same_every_time(igpt, digits_bert_run, tmp_path):
    words = ["probe", "--ckpt", digits_bert_run.checkpoint, *QUICK, "--out", tmp_path, "--store", tmp_path / "store"]
    words += ["--masks", 1, "--data", "Digits", "--data.batch_size"]
    assert "written" in igpt(*words, 64)[1]
    before = contents(tmp_path / "store")
    code, _, err = igpt(*words, 32)
    assert code == 2
    assert "differs in data" in err
    (tmp_path / "store").rename(tmp_path / "first")
    assert "written" in igpt(*words, 64, "--standardise", "false")[1]  # else what was measured before is kept
    assert contents(tmp_path / "store") == before


def partial(folder):
    """What an extraction that is under way has written."""
    return sorted(path.stat().st_size for path in folder.glob(".features.*.partial/*_features.npy"))


@pytest.mark.slow  # 15 s: two whole extractions and a half, image by image
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_extraction_leaves_nothing_under_the_stores_name_and_the_next_one_ends_with_the_same_bytes(
    igpt, digits_run, tmp_path, number
):
    words = ["probe", "--ckpt", digits_run.checkpoint, *QUICK, "--data", "Digits", "--data.batch_size", 2]
    words = [str(word) for word in [*words, "--accelerator", "cpu", "--out"]]
    command = [sys.executable, "-m", "igpt", *words, str(tmp_path / "cut")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO, env=environment)
    deadline = time.monotonic() + 120
    while not any(partial(tmp_path / "cut")) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.005)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode != 0
    left = [path.name for path in (tmp_path / "cut").iterdir()]
    if number == signal.SIGKILL:
        assert left == [f".features.{running.pid}.partial"]
    else:
        assert left == []
        assert b"Traceback" not in err
    code, out, err = igpt(*words, tmp_path / "cut")
    assert code == 0, err
    assert "written" in out
    assert igpt(*words, tmp_path / "whole")[0] == 0
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == WRITTEN
    assert contents(tmp_path / "cut" / "features") == contents(tmp_path / "whole" / "features")


MEASURE = r'''
import re, sys
from pathlib import Path
import torch
from igpt.probing.extract import stored_features
from igpt.data import ImageDataModule, LabelledImages, rng_of
from igpt.model.features import FeatureOptions
from igpt.system.hardware import Compute
from igpt.modules import Autoregressive

torch.set_num_threads(1)
folder, count = Path(sys.argv[1]), int(sys.argv[2])


class MadeUp(LabelledImages):
    """Images made as they are asked for."""

    def __init__(self, count):
        self.labels = [index % 10 for index in range(count)]

    def __getitem__(self, index):
        return torch.full((3, 4, 4), index % 256, dtype=torch.uint8), self.labels[index]


class Data(ImageDataModule):
    def load(self):
        return {"train": MadeUp(count), "test": MadeUp(100)}


shape = {"n_layers": 4, "d_model": 64, "n_heads": 4, "n_positions": 16, "vocab_size": 17}
module = Autoregressive(shape, palette="palettes/digits.npy").eval()
module.encode(torch.zeros(250, 3, 4, 4, dtype=torch.uint8))  # makes the palette's table, which is large for a moment
Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the largest size so far
store, reused = stored_features(
    module, "stands for a checksum", Data(resolution=4, batch_size=250), [0, 1, 2, 3, 4], FeatureOptions(grid=4),
    folder=folder / "store", own=True, dtype="float32", compute=Compute("cpu", "32-true"),
)
assert not reused
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) / 1024, store.bytes / 1e6)
'''


@pytest.mark.slow  # 20 s: 409 MB are written, and read twice
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of one part of a process")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for count in (2_000, 20_000):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", MEASURE, str(tmp_path / str(count)), str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=REPO,
                              env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        peak, size = map(float, done.stdout.split()[-2:])
        peaks.append(peak)
    print(f"peak memory {peaks} MiB, store {size:.0f} MB")
    assert size > 400
    assert peaks[1] - peaks[0] < 40
