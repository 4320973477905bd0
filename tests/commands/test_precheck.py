"""What is misspelt is refused within a second: before torch is imported, in one line that names what was meant."""

import inspect
import re
import subprocess
import sys

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from igpt.callbacks import SampleGrid, StepCheckpoint
from igpt.cli import TRAINER_VERBS, VERBS
from igpt.commands.precheck import Check, check_names
from igpt.modules import BERT, Autoregressive, Joint
from igpt.runs.trainer import Trainer
from igpt.system import UserError, parameters, registered, shipped_configs

FIT = "fit --config digits_ar "
TYPOS = [
    (FIT + "--trainer.max-steps=3", "--trainer.max_steps"),
    (FIT + "--data.class_path igpt_datamodules.Digit", "Digits"),
    (FIT + "--trainer.callbacks EarlyStoping", "EarlyStopping"),
    ("test --config digits_ar --ckpt_pth last", "--ckpt_path"),
    ("probe --ckpt x --labels-per-clas 4 25", "--labels_per_class"),
    ("surprise a.png --ckpt x --outt b.png", "--out"),
]


@pytest.mark.parametrize(("line", "meant"), TYPOS)
def test_a_misspelt_option_is_said_in_one_line_with_what_was_meant(igpt, line, meant):
    assert f"did you mean {meant}?" in in_one_line(igpt, *line.split())


def in_one_line(igpt, *words):
    code, _, err = igpt(*words)
    assert (code, len(err.splitlines())) == (2, 1), err
    return err


def test_misspelt_keys_of_groups_and_of_callbacks_in_a_config_are_said(igpt, digits_run, tmp_path):
    text = digits_run.config.read_text()
    stopping = "callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {patient: 3}}]"
    for right, wrong, meant in [
        ("trainer:", "trainr:", "--trainer"),
        ("every_n_train_steps:", "every_n_step:", "--checkpoint.every_n_train_steps"),
        ("max_steps: 30", stopping, "--trainer.callbacks.patience"),
    ]:
        (tmp_path / "typo.yaml").write_text(text.replace(right, wrong))
        assert f"did you mean {meant}?" in in_one_line(igpt, "fit", "--config", tmp_path / "typo.yaml")


@pytest.mark.parametrize("line", ["probe --ckpt gone.ckpt", "fit --confg x", "test --ckpt_path gone.ckpt",
                                  "fit --config digits_ar --model.learning_rat 3"])  # fmt: skip
def test_it_is_said_before_torch_is_imported(line):
    code = f"import sys; from igpt.cli import main; print(main({line.split()!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.parametrize("verb", ["probe", "test", "sample"])
def test_a_checkpoint_that_is_not_there_is_said_with_the_run_that_was_meant(igpt, tmp_path, monkeypatch, verb):
    (tmp_path / "runs" / "mine_ar").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for given in ("mine_arr", "runs/mine_ar/last.ckpt"):
        err = in_one_line(igpt, verb, "--ckpt", given)
        assert f"checkpoint {given} does not exist; did you mean the run mine_ar?" in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_that_the_help_names_passes(igpt, verb):
    names = set(re.findall(r"^  (?:-. .*, )?--([\w.]+)", igpt(verb, "--help=all")[1], re.MULTILINE))
    check = Check(verb, verb in TRAINER_VERBS)
    assert len(names) > 2
    for name in names:
        check.option(name)


def test_configs_that_come_along_and_those_of_runs_pass(digits_run):
    for config in [*shipped_configs().values(), digits_run.folder / "config.yaml", digits_run.config]:
        check_names("fit", ["--config", str(config)], trainer=True)


def test_what_follows_a_plus_a_preset_or_a_class_of_a_callback_passes():
    words = "--model.transformer.preset S --trainer.callbacks+ EarlyStopping --trainer.callbacks.mode min"
    check_names("fit", ["--config", "digits_ar", *words.split()], trainer=True)


@pytest.mark.parametrize(
    "kind",
    [Autoregressive, BERT, Joint, Trainer, StepCheckpoint, SampleGrid, EarlyStopping]
    + [point.load() for point in registered()],
    ids=lambda kind: kind.__name__,
)
def test_what_a_class_takes_is_read_from_its_source_as_python_sees_it(kind):
    path = f"{kind.__module__}.{kind.__qualname__}"
    known = inspect.signature(kind.__mro__[1] if kind is Trainer else kind).parameters
    assert set(parameters(path)) == {name for name, each in known.items() if each.kind != each.VAR_KEYWORD}


def test_a_class_whose_options_cannot_be_told_is_left_to_the_parser(tmp_path, monkeypatch):
    (tmp_path / "plug_in_of_a_test.py").write_text(
        "import gone\n\nclass Own(gone.Base):\n    def __init__(self, **rest): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert parameters("plug_in_of_a_test.Own") is None
    check_names("probe", ["--data", "plug_in_of_a_test.Own", "--data.anything", "3"], trainer=False)


def test_a_key_beside_init_args_is_said(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {class_path: igpt_datamodules.Digits, batch_size: 3}\n")
    with pytest.raises(UserError, match=r"data\.batch_size is no option; .* below data\.init_args"):
        check_names("fit", ["--config", str(tmp_path / "c.yaml")], trainer=True)
