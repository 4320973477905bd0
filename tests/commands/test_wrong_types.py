"""A value that does not fit is one line: the option's whole name, the value, and what is expected or missing."""

import pytest
from lightning_utilities.core.imports import RequirementCache

from tests.conftest import REPO

PALETTE = ("palette", "--data", "Digits", "--out", "p.npy")
FIT = ("fit", "--config", "digits_ar")
PROBE = ("--trainer.callbacks", "OnlineProbe", "--trainer.callbacks.layers")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((*FIT, "--model.learning_rate", "abc"), "--model.learning_rate is abc, not a number"),
        ((*FIT, "--model.transformer.n_layers", "3.5"), "--model.transformer.n_layers is 3.5, not a whole number"),
        ((*FIT, "--model.betas", "[0.9]"), "--model.betas is [0.9], not a list of 2"),
        ((*FIT, "--model", "[1, 2]"), "--model is [1, 2], not a RecipeModule"),
        ((*FIT, "--data.batch_size", "x"), "--data.batch_size is x, not a whole number"),
        ((*FIT, "--data.split.labels_per_class", "few"), "--data.split.labels_per_class is few, not a whole number"),
        ((*FIT, *PROBE, "1.5"), "--trainer.callbacks.layers is 1.5, not a list of whole numbers"),
        ((*FIT, "--samples.num", ""), "--samples.num is '', not a whole number"),
        ((*FIT, "--schedule", "sometimes"), "--schedule is sometimes, not one of continue, restart"),
        ((*FIT, "--seed_everything", "x"), "--seed_everything is x, not true or false or a whole number"),
        ((*PALETTE, "--data.batch_size", "x"), "--data.batch_size is x, not a whole number"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_line_names_the_option_the_value_and_what_is_expected(words, line, igpt):
    code, _, err = igpt(*words)
    assert (code, err) == (2, f"igpt {words[0]}: {line}\n")


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("n_layers: 6", "n_layers: three", "--model.transformer.n_layers is three, not a whole number"),
        ("batch_size: 64", "batch_size: x", "--data.batch_size is x, not a whole number"),
        ("trainer:", "samples: {num: [2]}\ntrainer:", "--samples.num is [2], not a whole number"),
    ],
)
def test_the_line_about_a_config_names_the_file_as_well(right, wrong, line, igpt, tmp_path):
    text, config = (REPO / "configs" / "digits_ar.yaml").read_text(), tmp_path / "mine.yaml"
    assert right in text
    config.write_text(text.replace(right, wrong))
    code, _, err = igpt("fit", "--config", config)
    assert (code, err) == (2, f"igpt fit: --config {config}: {line}\n")


def test_an_interval_between_validations_that_is_no_time_is_one_line(igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = igpt(*FIT, "--trainer.val_check_interval", "often")
    assert code == 2
    assert "val_check_interval" in err
    assert "often" in err


@pytest.mark.parametrize(
    ("kind", "known", "package"),
    [
        ("WandbLogger", "wandb._WANDB_AVAILABLE", "wandb>=999"),
        ("MLFlowLogger", "mlflow._MLFLOW_AVAILABLE", "mlflow>=99"),
    ],
)
def test_a_logger_whose_package_is_not_installed_names_it(kind, known, package, igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"lightning.pytorch.loggers.{known}", RequirementCache(package))
    code, _, err = igpt(*FIT, "--trainer.logger", kind, "--trainer.precision", "32-true")
    assert code == 2
    assert err == f"igpt fit: {kind} needs a package that is not installed: pip install '{package}'\n"
    assert not list(tmp_path.iterdir())


def test_a_class_without_what_it_needs_is_one_line(igpt):
    code, _, err = igpt(*FIT, "--trainer.callbacks", "OnExceptionCheckpoint")
    assert (code, err) == (2, "igpt fit: --trainer.callbacks.dirpath is missing\n")
