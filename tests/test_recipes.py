"""`recipe: modern` beside the paper's: what it stands for, what wins over it, and a training with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from igpt.checkpoints import read_checkpoint
from igpt.model import TransformerConfig
from igpt.modules import BERT, Autoregressive, CoarseToFine
from igpt.parsing import RECIPES
from igpt.runs.trainer import run
from igpt.system import UserError
from igpt.training import Recipe
from tests.conftest import REPO
from tests.stopping import stop
from tests.test_configs import Unrun
from tests.test_resume import same

FEW = ["--trainer.max_steps", 8, "--trainer.val_check_interval", 4, "--samples.num", 0, "--samples.completions", 0,
       "--trainer.log_every_n_steps", 1, "--trainer.precision", "32-true", "--trainer.accelerator", "cpu",
       "--trainer.enable_progress_bar", "false", "--data.init_args.batch_size", 16,
       "--data.init_args.split.labels_per_class", 16]  # fmt: skip
SMALL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
MODERN = RECIPES["modern"]


def module_of(folder, init_args, *words):
    """The module that a config with these arguments and a command line ask for, and its config."""
    config = yaml.safe_load((REPO / "configs" / "digits_ar.yaml").read_text())
    config["model"]["init_args"] = {"transformer": SMALL, "palette": str(REPO / "palettes" / "digits.npy")} | init_args
    path = Path(folder, "mine.yaml")
    path.write_text(yaml.safe_dump(config))
    with torch.device("meta"):
        cli = run("fit", ["--config", str(path), *words], Unrun)
    return cli.model, cli.config.fit.model.init_args


def parts(module):
    recipe, config = module.recipe, module.config
    return {"learning_rate": recipe.learning_rate, "optimizer": recipe.optimizer, "schedule": recipe.schedule,
            "transformer": {"positions": config.positions, "qk_norm": config.qk_norm}}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("init_args", "words"),
    [
        ({"recipe": "modern"}, []),
        ({}, ["--model.init_args.recipe", "modern"]),
        ({"learning_rate": 0.2}, ["--model.recipe=modern"]),  # a command line wins over a config
        ({"recipe": "paper"}, ["--model.recipe=modern"]),
    ],
)
def test_a_recipe_stands_for_its_parts_in_a_config_and_on_the_command_line(init_args, words, tmp_path):
    module, known = module_of(tmp_path, init_args, *words)
    assert parts(module) == MODERN
    assert (known.optimizer, known.schedule, known.transformer.qk_norm) == ("muon", "wsd", True)
    assert "recipe" not in known


@pytest.mark.parametrize(
    ("init_args", "words"),
    [
        ({}, []),
        ({"recipe": "paper"}, []),
        ({"recipe": "modern"}, ["--model.init_args.recipe", "paper"]),
    ],
)
def test_the_papers_recipe_is_the_default_and_can_be_had_again(init_args, words, tmp_path):
    assert parts(module_of(tmp_path, init_args, *words)[0]) == RECIPES["paper"] == parts(Autoregressive(SMALL))
    assert Recipe() == Recipe(0.001, (0.9, 0.95), 0.0, None, "adam", "cosine")


@pytest.mark.parametrize(
    ("init_args", "words", "changed"),
    [
        ({"recipe": "modern", "learning_rate": 0.5}, [], {"learning_rate": 0.5}),
        ({"recipe": "modern", "optimizer": "adam"}, ["--model.schedule", "cosine"],
         {"optimizer": "adam", "schedule": "cosine"}),
        ({}, ["--model.init_args.optimizer", "adam", "--model.recipe", "modern"], {"optimizer": "adam"}),
        ({}, ["--model.recipe", "modern", "--model.init_args.learning_rate=0.5"], {"learning_rate": 0.5}),
        ({"recipe": "modern", "transformer": SMALL | {"positions": "bias"}}, [],
         {"transformer": MODERN["transformer"] | {"positions": "bias"}}),
        ({}, ["--model.recipe=modern", "--model.init_args.transformer", json.dumps(SMALL | {"qk_norm": None})],
         {"transformer": MODERN["transformer"] | {"qk_norm": None}}),
        ({}, ["--model.transformer.positions", "bias", "--model.recipe=modern"],
         {"transformer": MODERN["transformer"] | {"positions": "bias"}}),
    ],
)  # fmt: skip
def test_what_is_given_beside_a_recipe_wins(init_args, words, changed, tmp_path):
    assert parts(module_of(tmp_path, init_args, *words)[0]) == MODERN | changed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.recipe", "old"], "model.init_args.recipe is 'old'; choose paper or modern"),
        (["--model.optimizer", "sgd"], "--model.optimizer is sgd, not one of adam, muon"),
        (["--model.schedule", "step"], "--model.schedule is step, not one of cosine, wsd"),
        (["--model.recipe", "modern", "--model.transformer.attention", "[lsh]"], "is not defined for lsh"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(igpt, words, told):
    code, _, err = igpt("fit", "--config", REPO / "configs" / "digits_ar.yaml", *words)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_an_unknown_recipe_in_a_config_is_refused_in_one_line_and_fine_tuning_has_none(igpt):
    text = (REPO / "configs" / "digits_ar.yaml").read_text()
    Path("mine.yaml").write_text(text.replace("    learning_rate", "    recipe: old\n    learning_rate"))
    code, _, err = igpt("fit", "--config", "mine.yaml")
    assert (code, err.strip()) == (2, "igpt fit: model.init_args.recipe is 'old'; choose paper or modern")
    code, _, err = igpt("fit", "--config", REPO / "configs" / "digits" / "joint.yaml", "--model.recipe", "modern")
    assert code == 2
    assert "--model.recipe is no option" in err


@pytest.mark.parametrize("kind", [Autoregressive, BERT, CoarseToFine])
def test_every_objective_takes_the_switches_and_writes_them_only_where_they_are_not_the_papers(kind):
    config = TransformerConfig(1, 16, 2, 16, 17, sos=kind.causal)
    assert not {"optimizer", "schedule"} & kind(config).spec()["init_args"].keys()
    module = kind(replace(config, qk_norm=True), optimizer="muon", schedule="wsd")
    written = module.spec()["init_args"]
    assert (written["optimizer"], written["schedule"], written["transformer"]["qk_norm"]) == ("muon", "wsd", True)
    assert type(kind(**written)).__name__ == kind.__name__


def test_wrong_switches_are_refused_from_python():
    for wrong in ({"optimizer": "sgd"}, {"schedule": "step"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Autoregressive(SMALL, **wrong)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a config whose recipe is modern."""
    home = tmp_path_factory.mktemp("modern")
    config = yaml.safe_load((REPO / "configs" / "digits_ar.yaml").read_text())
    config["model"]["init_args"] = {
        "transformer": SMALL, "palette": str(REPO / "palettes" / "digits.npy"), "recipe": "modern",
        "warmup_steps": 2, "weight_decay": 0.1,
    }  # fmt: skip
    (home / "modern.yaml").write_text(yaml.safe_dump(config))
    return home


def fit(igpt, home, name, *words):
    return igpt("fit", "--config", home / "modern.yaml", "--runs_dir", home, "--name", name, *FEW, *words)


def test_a_modern_run_that_was_interrupted_ends_with_the_same_bits(igpt, home):
    clip = ["--trainer.gradient_clip_val", 1.0, "--checkpoint.every_n_train_steps", 2]
    assert fit(igpt, home, "whole", *clip)[0] == 0
    assert fit(igpt, home, "cut", *clip, *stop(3))[0] == 75
    assert fit(igpt, home, "cut", *clip, "--ckpt_path", "last", *stop(7, "kill"))[0] == 9
    code, _, err = fit(igpt, home, "cut", *clip, "--ckpt_path", "last")
    assert code == 0, err
    one, other = (read_checkpoint(home / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut"))
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops"):
        assert same(one[part], other[part]), part
    stored = yaml.safe_load((home / "whole" / "config.yaml").read_text())["model"]["init_args"]
    assert (stored["optimizer"], stored["schedule"], "recipe" in stored) == ("muon", "wsd", False)
    assert [group["parts"] for group in one["optimizer_states"][0]["param_groups"]] == [1, 3, 0]


def test_another_optimizer_is_refused_where_a_run_goes_on(igpt, home):
    if not (home / "whole").exists():
        assert fit(igpt, home, "whole")[0] == 0
    code, _, err = fit(igpt, home, "whole", "--ckpt_path", "last", "--model.optimizer", "adam")
    assert code == 2
    assert "the checkpoint's optimizer is muon, the config's adam" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_tune_tries_rates_of_a_modern_config_with_its_other_parts(igpt, home):
    code, out, err = igpt("tune", "--config", home / "modern.yaml", "--rates", "0.02", "--out", "tuned", "--overrides",
                          json.dumps(["trainer.max_steps=2", "trainer.val_check_interval=2", "samples.num=0",
                                      "samples.completions=0", "trainer.limit_val_batches=1"]))  # fmt: skip
    assert code == 0, err
    made = read_checkpoint("tuned/lr_0.02/checkpoints/last.ckpt")["igpt"]["model"]["init_args"]
    assert (made["learning_rate"], made["optimizer"], made["schedule"]) == (0.02, "muon", "wsd")
    assert "chose learning rate 0.02" in out
