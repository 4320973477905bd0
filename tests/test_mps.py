"""The verbs on the GPU of a Mac, as far as tests/mps.py can stand in for one."""

import json

import numpy as np
import pytest
import torch

import igpt.commands.probe
import igpt.commands.sample
import igpt.commands.surprise
from tests.mps import OnMPS, mac

QUIET = ["--trainer.accelerator", "mps", "--samples.num", 2, "--samples.completions", 2]
PROBE = {"class_path": "igpt.callbacks.OnlineProbe", "init_args": {"every_n_steps": 3, "train_images": 200}}


@pytest.fixture(autouse=True)
def _on_a_mac(monkeypatch):
    for command in (igpt.commands.probe, igpt.commands.sample, igpt.commands.surprise):
        monkeypatch.setattr(command, "device_of", lambda accelerator: accelerator)
    with mac(monkeypatch):
        yield


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


@pytest.mark.parametrize("kind", ["AR", "BERT"])
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


def test_features_are_those_of_the_cpu(digits_run):
    module = igpt.loading.load(digits_run.checkpoint).module
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        expected = module.features(module.encode(images), [0, 3])
        module.to("mps")
        found = module.features(module.encode(images.to("mps")), [0, 3])
    torch.testing.assert_close(found.cpu(), expected)
