"""`precision: auto` through the commands: said in one line, kept by a resumed run, and recorded with every number."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from igpt.checkpoints.format import read_checkpoint
from igpt.system import hardware


@pytest.fixture(params=["2.5 times as fast", "12 times slower"])
def machine(request, monkeypatch):
    """A CPU with or without bfloat16, by the measured ratio of its products: the precision and the words about it."""
    monkeypatch.setenv(hardware.RATIO, "0.4" if "fast" in request.param else "12")
    hardware.bf16_ratio.cache_clear()
    yield ("bf16-mixed" if "fast" in request.param else "32-true"), request.param
    hardware.bf16_ratio.cache_clear()


@pytest.fixture
def auto_config(digits_run, tmp_path):
    """The small run's config without a precision, two steps long."""
    text = digits_run.config.read_text().replace("  precision: 32-true\n", "").replace("max_steps: 30", "max_steps: 2")
    path = tmp_path / "auto.yaml"
    path.write_text(text.replace("num: 4, completions: 2", "num: 0, completions: 0"))
    return path


def fit(igpt, config, *options):
    code, out, err = igpt("fit", "--config", config, "--runs_dir", config.parent / "runs", *options)
    assert code == 0, err
    return out, err


def trained_in(config):
    """The precision in a run's config.yaml and in its checkpoint, which are one."""
    run = config.parent / "runs" / "auto"
    written = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["igpt"]["precision"] == written
    return written


def test_fit_chooses_says_and_records_the_precision_that_is_quickest_here(igpt, auto_config, machine):
    precision, words = machine
    out, _ = fit(igpt, auto_config)
    assert f"precision {precision}: this CPU multiplies bfloat16 {words}" in out
    assert trained_in(auto_config) == precision


def test_a_resumed_run_keeps_the_precision_it_began_with(igpt, auto_config, machine):
    other = {"32-true": "bf16-mixed", "bf16-mixed": "32-true"}[machine[0]]
    out, _ = fit(igpt, auto_config, "--trainer.precision", other)
    assert "precision" not in out
    out, _ = fit(igpt, auto_config, "--trainer.max_steps", "4", "--ckpt_path", "last")
    assert f"precision {other}: the run that is resumed began with it" in out
    assert trained_in(auto_config) == other


def test_a_test_says_in_which_precision_its_scores_were_computed(igpt, auto_config, machine):
    fit(igpt, auto_config, "--trainer.precision", "32-true")
    code, out, err = igpt(
        "test", "--config", auto_config, "--runs_dir", auto_config.parent / "runs", "--ckpt_path", "last"
    )
    assert code == 0, err
    assert f"precision {machine[0]}: this CPU" in out
    assert json.loads((auto_config.parent / "runs/auto/scores.json").read_text())[0]["precision"] == machine[0]


def test_probe_records_the_precision_it_chose(igpt, digits_run, tmp_path, machine):
    code, out, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", "1", "--out", tmp_path)
    assert code == 0, err
    assert f"precision {machine[0]}: this CPU" in out
    assert json.loads((tmp_path / "probe.json").read_text())["features"]["precision"] == machine[0]


def test_stored_features_of_one_precision_are_not_taken_for_those_of_another(igpt, digits_run, tmp_path, monkeypatch):
    probe = ("probe", "--ckpt", digits_run.checkpoint, "--layers", "1", "--out", tmp_path)
    for ratio, said, words in [("12", "written", []), ("12", "reused", ["--method", "knn"]), ("0.4", "written", [])]:
        monkeypatch.setenv(hardware.RATIO, ratio)
        hardware.bf16_ratio.cache_clear()
        code, out, err = igpt(*probe, *words)
        assert code == 0, err
        assert said in out.split("MB, ")[1].splitlines()[0]
    hardware.bf16_ratio.cache_clear()
    code, _, err = igpt(*probe, "--store", tmp_path / "features", "--precision", "32-true")
    assert code == 2
    assert "differs in precision" in err


def test_drawing_in_bfloat16_gives_pictures_like_those_of_float32(igpt, digits_run, tmp_path):
    """Greedy: most pixels are the same, whichever way they are drawn."""
    drawn = {}
    for precision in ("32-true", "bf16-mixed"):
        out = tmp_path / f"{precision}.png"
        words = ("--rows", 4, "--num", 1, "--top_k", 1, "--out", out, "--precision", precision)
        code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, *words)
        assert code == 0, err
        drawn[precision] = np.load(out.with_suffix(".npy"))
    assert (drawn["32-true"] == drawn["bf16-mixed"]).mean() > 0.8


def test_surprise_in_bfloat16_is_about_that_in_float32(igpt, digits_run, tmp_path):
    picture, nats = tmp_path / "picture.png", {}
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(picture)
    for precision in ("32-true", "bf16-mixed"):
        out = tmp_path / f"{precision}.png"
        words = ("--ckpt", digits_run.checkpoint, "--out", out, "--precision", precision)
        code, _, err = igpt("surprise", picture, *words)
        assert code == 0, err
        nats[precision] = np.load(out.with_suffix(".npy"))
    assert not np.array_equal(nats["32-true"], nats["bf16-mixed"])
    np.testing.assert_allclose(nats["32-true"], nats["bf16-mixed"], atol=0.2)


@pytest.mark.filterwarnings("default:--trainer.precision")
def test_another_precision_than_a_resumed_run_began_with_is_a_warning_and_stands(igpt, auto_config):
    fit(igpt, auto_config, "--trainer.precision", "32-true")
    _, err = fit(
        igpt, auto_config, "--trainer.max_steps", "4", "--ckpt_path", "last", "--trainer.precision", "bf16-mixed"
    )
    assert "precision bf16-mixed: the run that is resumed began with 32-true" in err
    assert trained_in(auto_config) == "bf16-mixed"
