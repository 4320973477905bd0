"""A config may name classes of igpt, Lightning, torch and plug-ins; of anything else, not even the import runs."""

import json
import sys

import pytest

HOSTILE = """
import pathlib
pathlib.Path({mark!r}).mkdir()
import lightning.pytorch as pl
from igpt_datamodules import Digits
from igpt.modules import Autoregressive, BERT

class Callback(pl.Callback):
    pass

class Data(Digits):
    pass

class Model(Autoregressive):
    pass

class Held(BERT):
    pass

def function(*words):
    pass
"""


@pytest.fixture
def hostile(tmp_path_factory, monkeypatch, mark):
    """A module on the path that leaves a mark where it is imported."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "hostile.py").write_text(HOSTILE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(folder))
    yield "hostile"
    sys.modules.pop("hostile", None)


def of_class(path, **init_args):
    return json.dumps({"class_path": path, "init_args": init_args})


def lambda_callback(function):
    return ["--trainer.callbacks+", of_class("lightning.pytorch.callbacks.LambdaCallback", on_fit_start=function)]


FUNCTIONS = [
    "os.abort",
    "igpt.system.files.os.abort",
    "subprocess.run",
    "builtins.exec",
    "webbrowser.open",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.nn.modules.module.torch.load",
    "torch.jit.load",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "igpt.modules.Autoregressive.load_from_checkpoint",
    "numpy.load",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_callback_that_would_call_a_strangers_function(refused, digits_run, name):
    words = ["--trainer.callbacks", "--allow-imports"]
    refused("fit", "--config", digits_run.config, *lambda_callback(name), words=words)


PLACES = {  # options of `fit`, in which a class of the module stands
    "a callback": ["--trainer.callbacks+", of_class("hostile.Callback")],
    "callbacks in a list": ["--trainer.callbacks", f"[{of_class('hostile.Callback')}]"],
    "a function within a callback": lambda_callback("hostile.function"),
    "a plug-in": ["--trainer.plugins+", of_class("hostile.Callback")],
    "a logger": ["--trainer.logger", of_class("hostile.Callback")],
    "the data": ["--data", "hostile.Data"],
    "the data in full": ["--data", of_class("hostile.Data")],
    "the model": ["--model", "hostile.Model"],
    "the model within a Joint": [
        "--model",
        of_class("igpt.modules.Joint", num_classes=2, generative={"class_path": "hostile.Held", "init_args": {}}),
    ],
    "the help of a class": ["--data.help", "hostile.Data"],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_strangers_module_in_a_training_is_not_imported(refused, digits_run, hostile, place):
    refused("fit", "--config", digits_run.config, *PLACES[place], words=["hostile", "--allow-imports hostile"])


@pytest.mark.parametrize(
    "option", ["callbacks: [{class_path: hostile.Callback}]", "strategy: {class_path: hostile.Callback}"]
)
def test_a_strangers_module_in_a_config_file_is_not_imported(refused, digits_run, hostile, tmp_path, option):
    (tmp_path / "more.yaml").write_text(f"trainer: {{{option}}}\n")
    refused("fit", "--config", digits_run.config, "--config", "more.yaml", words=["--allow-imports hostile"])


def test_a_strangers_module_in_another_verb_is_not_imported(refused, digits_run, hostile, tmp_path):
    refused("palette", "--data", "hostile.Data", "--out", "p.npy", words=["--allow-imports hostile"])
    (tmp_path / "p.yaml").write_text("data: {class_path: hostile.Data}\nout: p.npy\n")
    refused("palette", "--config", "p.yaml", words=["--allow-imports hostile"])
    refused("probe", "--ckpt", digits_run.checkpoint, "--data", "hostile.Data", words=["--allow-imports hostile"])


def test_a_name_that_no_module_has_is_not_looked_for_either(refused, digits_run):
    refused(
        "fit", "--config", digits_run.config, "--data", "nowhere.Data", words=["nowhere", "--allow-imports nowhere"]
    )


@pytest.fixture
def welcome(tmp_path_factory, monkeypatch):
    """A module on the path that the user allows."""
    folder = tmp_path_factory.mktemp("welcome")
    source = HOSTILE.replace("hostile", "welcome").replace("pathlib.Path({mark!r}).mkdir()", "")
    (folder / "welcome.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    yield "welcome"
    sys.modules.pop("welcome", None)


def test_what_is_allowed_by_name_is_imported_and_used_and_its_checkpoint_too(igpt, digits_run, welcome, tmp_path):
    options = ["--config", digits_run.config, "--runs_dir", tmp_path, "--trainer.max_steps", 1, "--samples.num", 0]
    options += ["--samples.completions", 0, "--trainer.limit_val_batches", 0, "--data", "welcome.Data"]
    options += [*lambda_callback("welcome.function"), "--allow-imports", "welcome"]
    code, _, err = igpt("fit", *options)
    assert code == 0, err
    assert "--allow-imports welcome" in (tmp_path / "mini" / "commands.txt").read_text()
    probe = ["probe", "--ckpt", tmp_path / "mini" / "checkpoints" / "last.ckpt", "--layers", 1, "--method", "knn"]
    assert igpt(*probe)[0] == 2
    code, _, err = igpt(*probe, "--allow-imports=welcome")
    assert code == 0, err


def test_what_the_environment_allows_is_imported(igpt, welcome, tmp_path, monkeypatch):
    monkeypatch.setenv("IGPT_ALLOW_IMPORTS", "another welcome")
    code, _, err = igpt("palette", "--data", "welcome.Data", "--colors", 4, "--out", tmp_path / "p.npy")
    assert code == 0, err


@pytest.mark.parametrize("name", ["", "a-b", "*", "jsonargparse", "--out"])
def test_what_is_no_name_of_a_module_cannot_be_allowed(refused, name):
    words = ["--data", "Digits", "--out", "p.npy", "--allow-imports", name]
    refused("palette", *words, words=["--allow-imports"])
