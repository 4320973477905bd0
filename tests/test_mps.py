"""The verbs on the GPU of a Mac, as far as tests/mps.py can stand in for one."""

import json
import os

import numpy as np
import pytest
import torch
import yaml

from igpt.modules.loading import load
from igpt.probing.methods.lbfgs import probing_device
from tests.mps import OnMPS, mac

QUIET = ["--trainer.accelerator", "mps", "--samples.num", 2, "--samples.completions", 2]
PROBE = {"class_path": "igpt.callbacks.OnlineProbe", "init_args": {"every_n_steps": 3, "train_images": 200}}


@pytest.fixture
def _on_a_mac(digits_run, digits_bert_run, monkeypatch):  # those were made before
    with mac(monkeypatch):
        yield


@pytest.mark.usefixtures("_on_a_mac")
def test_what_stands_in_refuses_what_mps_refuses():
    there = torch.ones(3, device="mps")
    assert there.device.type == "mps"
    assert isinstance(there.to(torch.float16) @ there.to("mps").half(), OnMPS)
    assert type(there.cpu()) is type((there * 2).to("cpu")) is torch.Tensor
    for refused, error in {
        lambda: there.double(): TypeError,
        lambda: torch.zeros(3, dtype=torch.float64).to("mps"): TypeError,
        lambda: torch.zeros(3, dtype=torch.float64, device=there.device): TypeError,
        lambda: there + torch.ones(3): RuntimeError,
        lambda: torch.cat([torch.ones(3), there]): RuntimeError,
        lambda: there.numpy(): TypeError,
        lambda: np.asarray(there): TypeError,
    }.items():
        with pytest.raises(error):
            refused()


@pytest.mark.usefixtures("_on_a_mac")
@pytest.mark.parametrize("kind", ["AR", pytest.param("BERT", marks=pytest.mark.slow)])
def test_training_with_pictures_and_probes_and_then_all_that_reads_its_checkpoint(
    kind, digits_run, digits_bert_run, igpt, tmp_path
):
    run = {"AR": digits_run, "BERT": digits_bert_run}[kind]
    fit = ["--config", run.config, "--runs_dir", tmp_path, *QUIET]
    code, _, err = igpt("fit", *fit, "--trainer.max_steps", 6, "--trainer.callbacks+", json.dumps(PROBE))
    assert code == 0, err
    folder = tmp_path / run.config.stem
    last = folder / "checkpoints" / "last.ckpt"
    commands = [
        ["test", *fit, "--ckpt_path", "last"],
        ["predict", *fit, "--ckpt_path", "last"],
        ["probe", "--ckpt", last, "--method", "all", "--epochs", 1, "--grid", 2, "--accelerator", "mps"],
        ["sample", "--ckpt", last, "--rows", 2, "--num", 2, "--out", tmp_path / "a.png", "--accelerator", "mps"],
        ["sample", "--ckpt", last, "--rows", 2, "--top_p", 0.9, "--out", tmp_path / "b.png", "--accelerator", "mps"],
        ["surprise", tmp_path / "a.png", "--ckpt", last, "--out", tmp_path / "c.png", "--accelerator", "mps"],
    ]
    for command in commands:
        code, _, err = igpt(*command)
        assert code == 0, (command, err)
    here = torch.load(last, weights_only=True)["state_dict"]
    assert all(type(value) is torch.Tensor for value in here.values())


@pytest.mark.usefixtures("_on_a_mac")
@pytest.mark.parametrize("evaluation", ["mode", "mean"])
def test_fine_tuning_and_its_test(evaluation, digits_bert_run, igpt, tmp_path):
    config = yaml.safe_load(digits_bert_run.config.read_text())
    joint = {"num_classes": 10, "pretrained": str(digits_bert_run.checkpoint), "evaluation": evaluation}
    config["model"] = {"class_path": "igpt.modules.Joint", "init_args": joint}
    (tmp_path / "joint.yaml").write_text(yaml.safe_dump(config))
    fit = ["--config", tmp_path / "joint.yaml", "--runs_dir", tmp_path, *QUIET, "--trainer.max_steps", 3]
    for command in (["fit", *fit], ["test", *fit, "--ckpt_path", "last"]):
        code, _, err = igpt(*command)
        assert code == 0, (command, err)


@pytest.mark.usefixtures("_on_a_mac")
def test_features_are_those_of_the_cpu(digits_run):
    module = load(digits_run.checkpoint).module
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        expected = module.features(module.encode(images), [0, 3])
        module.to("mps")
        found = module.features(module.encode(images.to("mps")), [0, 3])
    torch.testing.assert_close(found.cpu(), expected)


def test_probes_are_fitted_where_there_is_float64():
    places = {name: probing_device(torch.device(name)).type for name in ("cpu", "cuda", "mps")}
    assert places == {"cpu": "cpu", "cuda": "cuda", "mps": "cpu"}


def test_what_mps_lacks_runs_on_the_cpu_unless_the_user_says_otherwise(igpt, monkeypatch):
    name = "PYTORCH_ENABLE_MPS_FALLBACK"
    for given, expected in ((None, "1"), ("0", "0")):
        monkeypatch.setenv(name, given or "")
        if given is None:
            monkeypatch.delenv(name)
        igpt("report")
        assert os.environ[name] == expected
