"""Sizes that follow from palette and data need not be in a config."""

from pathlib import Path

import pytest
import yaml

from igpt.modules.loading import load


@pytest.fixture
def config(digits_run, tmp_path, monkeypatch):
    """The small config of the digits without sizes, three steps of it."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(digits_run.config.read_text())
    content["model"]["init_args"]["transformer"] = {"n_layers": 1, "d_model": 16, "n_heads": 2}
    content["trainer"] |= {"max_steps": 2, "val_check_interval": 2}
    content["samples"] = {"num": 0, "completions": 0}
    return content


def fit(igpt, content, *options):
    Path("own.yaml").write_text(yaml.safe_dump(content))
    code, _, err = igpt("fit", "--config", "own.yaml", *options)
    assert code == 0, err
    return load("runs/own/checkpoints/last.ckpt").module


@pytest.mark.parametrize("side", [8, 12])
def test_positions_follow_from_the_resolution_and_colours_from_the_palette(config, igpt, side):
    module = fit(igpt, config, "--data.init_args.resolution", side)
    assert module.transformer.config.n_positions == side**2
    assert module.transformer.config.vocab_size == module.palette.k == 17
    kept = yaml.safe_load(Path("runs/own/config.yaml").read_text())["model"]["init_args"]["transformer"]
    assert (kept["n_positions"], kept["vocab_size"]) == (side**2, 17)


def test_a_preset_takes_its_positions_from_the_data_too(config, igpt):
    config["model"]["init_args"]["transformer"] = {"preset": "S", "n_layers": 1, "d_model": 8}
    assert fit(igpt, config).transformer.config.n_positions == 64


def test_classes_follow_from_the_data(config, digits_run, igpt):
    config["model"] = {
        "class_path": "igpt.modules.Joint",
        "init_args": {"pretrained": str(digits_run.checkpoint), "learning_rate": 0.001},
    }
    assert fit(igpt, config).num_classes == 10


def test_what_is_given_counts_and_must_fit(config, igpt):
    config["model"]["init_args"]["transformer"] |= {"n_positions": 81}
    Path("own.yaml").write_text(yaml.safe_dump(config))
    code, _, err = igpt("fit", "--config", "own.yaml")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "n_positions 81" in err
