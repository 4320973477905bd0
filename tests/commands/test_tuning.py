"""What `igpt tune` decides, without training anything."""

import math

import pytest
import yaml

from igpt.commands.tune import (
    RateResult,
    choose,
    config_text,
    differences,
    parse_rates,
    read_settings,
    run_settings,
    table,
    tried,
    with_rate,
)
from igpt.system.errors import UserError

RATES = [0.01, 0.003, 0.001, 0.0003]
CONFIG = """# igpt fit --config configs/a.yaml
# learning_rate: 5 is no rate but a comment
model:
  class_path: igpt.modules.Autoregressive
  init_args:
    transformer: {n_layers: 2}
    learning_rate: 1e-3  # the old one
trainer: {max_steps: 10}
"""


def result(rate, loss):
    failed = None if math.isfinite(loss) else "the training loss became nan"
    return RateResult(rate, None if failed else loss, 10, 10, 1.0, failed)


def results(*losses):
    return {rate: result(rate, loss) for rate, loss in zip(RATES, losses, strict=False)}


@pytest.mark.parametrize(
    ("losses", "runs"),
    [
        ([2.0, 1.9, 1.8, 1.7], 4),
        ([2.0, 2.0, 2.0, 2.0], 4),
        ([2.0, 1.9, 1.95, 1.0], 3),
        ([2.0, 2.1, 1.0, 0.5], 2),
        ([math.inf, math.inf, math.inf, math.inf], 4),
        ([math.inf, 2.0, math.inf, 1.0], 3),
        ([2.0, math.inf, 1.0, 0.5], 2),
    ],
)
def test_rates_are_tried_in_order_until_a_loss_is_above_that_of_the_rate_before(losses, runs):
    asked = []
    known = results(*losses)
    found = tried(RATES, lambda rate: asked.append(rate) or known[rate])
    assert asked == RATES[:runs]
    assert found == [known[rate] for rate in asked]


def test_results_of_rates_that_are_not_asked_for_play_no_part():
    assert [r.rate for r in tried([0.003, 0.001], results(2.0, 1.9, 1.8).__getitem__)] == [0.003, 0.001]


def test_the_lowest_loss_is_chosen_and_the_earlier_of_equals():
    assert choose(list(results(2.0, 1.9, 1.95).values())).rate == 0.003
    assert choose(list(results(1.9, 1.9, 1.95).values())).rate == 0.01
    assert choose(list(results(math.inf, 1.9).values())).rate == 0.003
    assert choose(list(results(math.inf, math.inf).values())) is None
    assert choose([]) is None


def test_the_table_marks_the_chosen_the_failed_and_the_untried():
    lines = table(RATES, list(results(math.inf, 1.9, 1.95).values())).splitlines()
    assert "failed" in lines[1]
    assert "nan" in lines[1]
    assert lines[2].endswith("<- chosen")
    assert "1.9500" in lines[3]
    assert "not tried" in lines[4]


@pytest.mark.parametrize(
    ("text", "word"), [("fast", "fast"), ("", "numbers"), ("0.01,-1", "positive"), ("nan", "positive"),
                       ("0.01,1e-2", "twice")]
)  # fmt: skip
def test_rates_that_are_none_are_refused(text, word):
    with pytest.raises(UserError, match=f"--rates.*{word}"):
        parse_rates(text)


def test_the_chosen_config_is_the_original_but_for_the_rate():
    settings = read_settings(CONFIG, [], "a.yaml")
    assert settings["model"]["init_args"]["learning_rate"] == 0.001
    assert config_text(CONFIG, settings, 0.0003) == CONFIG.replace("1e-3", "0.0003")


def test_overrides_and_a_rate_left_at_its_default_are_written_out():
    original = CONFIG.replace("    learning_rate: 1e-3  # the old one\n", "")
    settings = read_settings(original, ["trainer.max_steps=20", "checkpoint.at_steps=[1, 2]"], "a.yaml")
    text = config_text(original, settings, 1e-05)
    assert text.startswith("# igpt fit --config configs/a.yaml\n")
    written = yaml.safe_load(text)
    assert written["trainer"] == {"max_steps": 20}
    assert written["checkpoint"] == {"at_steps": [1, 2]}
    assert written["model"]["init_args"] == {"transformer": {"n_layers": 2}, "learning_rate": 1e-05}


def test_configs_differ_by_content_not_by_comments_order_or_the_rate_that_is_tried():
    settings = read_settings(CONFIG, [], "a.yaml")
    same = read_settings("trainer: {max_steps: 10}\n" + CONFIG.replace("trainer: {max_steps: 10}\n", "").replace(
        "1e-3  # the old one", "0.5"), [], "a.yaml")  # fmt: skip
    assert differences(with_rate(same, 0.1), with_rate(settings, 0.1)) == []
    other = read_settings(CONFIG, ["trainer.max_steps=11", "data.seed=1"], "a.yaml")
    assert differences(settings, other) == ["data.seed", "trainer.max_steps"]


@pytest.mark.parametrize(
    "callbacks", [None, [], "Mine", {"class_path": "Mine"}, [{"class_path": "Mine"}],
                  [{"class_path": "igpt.callbacks.LossGuard", "init_args": {"factor": 9.0}}]]
)  # fmt: skip
def test_every_run_has_one_guard_beside_the_callbacks_of_the_config(callbacks):
    settings = read_settings(CONFIG, [], "a.yaml")
    settings["trainer"]["callbacks"] = callbacks
    run = run_settings(settings, 0.01, "f", "lr_0.01")
    *others, guard = run["trainer"]["callbacks"]
    assert guard["class_path"] == "igpt.callbacks.LossGuard"
    assert guard["init_args"]["out"] == "f/lr_0.01/result.json"
    has_own = "LossGuard" in str(callbacks)
    assert guard["init_args"].get("factor") == (9.0 if has_own else None)
    assert others == ([{"class_path": "Mine"}] if "Mine" in str(callbacks) else [])
    assert settings["trainer"]["callbacks"] == callbacks
    assert (run["name"], run["runs_dir"]) == ("lr_0.01", "f")
