"""What version 0.1 wrote is read, and gives the numbers that it gave (tests/data/released_0.1/made_by.sh)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import igpt as api
from igpt_datamodules import TokenShards
from tests.conftest import REPO

LAST = {name: f"runs/{name}/checkpoints/last.ckpt" for name in ("ar", "bert", "joint")}
KEPT = [(3.0, 1.0, 0.5), (1.0, 0.5, 0.5)]  # rates and accuracies of its sgd probe, never interrupted
EXACT = ["--precision", "32-true", "--accelerator", "cpu"]


@pytest.fixture(autouse=True)
def released(tmp_path, monkeypatch):
    """A copy of the folder, as the working folder: its configs, checkpoints and records name their files from there."""
    folder = tmp_path / "released"
    shutil.copytree(REPO / "tests" / "data" / "released_0.1", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("name", "step"), [("ar", 30), ("bert", 30), ("joint", 10)])
def test_a_checkpoint_gives_the_logits_it_gave(name, step):
    kept, loaded = np.load("logits.npz"), api.load(LAST[name])
    tokens = torch.from_numpy(kept["tokens"])
    with torch.no_grad():
        if name == "joint":
            found = loaded.module.class_logits(tokens)
        else:
            found = loaded.module.transformer(tokens, causal=name == "ar")
    assert loaded.step == step
    np.testing.assert_allclose(found.numpy(), kept[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAST)
def test_a_run_goes_on_by_the_config_it_wrote(igpt, name):
    steps = json.loads(Path(f"runs/{name}/result.json").read_text())["steps"]
    code, _, err = igpt("fit", "--config", f"runs/{name}/config.yaml", "--ckpt_path", "last",
                        "--trainer.max_steps", steps + 4)  # fmt: skip
    assert code == 0, err
    assert api.load(LAST[name]).step == steps + 4


@pytest.mark.parametrize("name", LAST)
def test_a_run_is_tested_by_the_config_it_wrote(igpt, name):
    code, out, err = igpt("test", "--config", f"runs/{name}/config.yaml", "--ckpt_path", "last")
    assert code == 0, err
    assert "test/loss" in out


def test_the_likeliest_pixels_are_those_it_drew(igpt):
    assert igpt("sample", "--ckpt", LAST["ar"], "--num", 3, "--top_k", 1, *EXACT, "--out", "again.png")[0] == 0
    assert np.array_equal(np.load("again.npy"), np.load("samples.npy"))
    code, _, err = igpt("sample", "--ckpt", LAST["bert"], "--indices", 0, 1, "--num", 1, "--top_k", 1, "--steps", 8,
                        *EXACT, "--out", "filled.png")  # fmt: skip
    assert code == 0, err
    assert np.array_equal(np.load("filled.npy"), np.load("infilled.npy"))


def test_its_results_are_kept_its_features_reused_and_probes_as_accurate(igpt):
    def accuracies(folder):
        methods = json.loads(Path(folder, "probe.json").read_text())["methods"]
        return {
            name: [(row["test_accuracy"], row["val_accuracy"]) for row in one["layers"]]
            for name, one in methods.items()
        }

    words = ["probe", "--ckpt", LAST["ar"], "--method", "lbfgs,knn", *EXACT]
    before = accuracies("runs/ar/probe")
    code, out, err = igpt(*words)
    assert code == 0, err
    assert "kept lbfgs, knn" in out
    assert accuracies("runs/ar/probe") == before
    code, out, err = igpt(*words, "--store", "runs/ar/probe/features", "--out", "again")
    assert code == 0, err
    assert "reused" in out
    assert accuracies("again") == before


def test_an_unfinished_sgd_probe_goes_on_to_the_results_of_one_that_was_not_interrupted(igpt):
    words = ["probe", "--ckpt", LAST["ar"], "--method", "sgd", "--layers", "0,1", "--epochs", 4, *EXACT, "--out"]
    state = Path("cut/sgd/layers_0_1/sgd.ckpt")
    state.parent.mkdir(parents=True)
    shutil.copy("unfinished_sgd.ckpt", state)  # after 2 of the 4 epochs; one of another probe would be refused
    code, _, err = igpt(*words, "cut")
    assert code == 0, err
    assert not state.exists()
    code, _, err = igpt(*words, "whole")
    assert code == 0, err
    cut, whole = (json.loads(Path(name, "probe.json").read_text())["layers"] for name in ("cut", "whole"))
    assert cut == whole
    assert [(row["rate"], row["val_accuracy"], row["test_accuracy"]) for row in cut] == KEPT


def test_token_shards_hold_the_images():
    shards, palette = TokenShards("tokens", batch_size=4), api.Palette.load("palette.npy")
    shards.prepare_data()
    assert {name: shards.size(name) for name in ("train", "val", "test")} == {"train": 22, "val": 2, "test": 20}
    paths = sorted(Path("images/test").glob("*/*.png"))
    assert len(paths) == 20
    images = torch.stack(
        [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths]
    )
    found = torch.cat([batch for batch, _ in shards.loader("test")])
    assert torch.equal(palette.encode(found), palette.encode(images))


def test_the_report_shows_runs_and_probe(igpt):
    code, _, err = igpt("report", "runs/ar", "runs/bert", "runs/joint", "--out", "report.html")
    assert code == 0, err
    assert "runs/ar" in Path("report.html").read_text()
