"""When a run counts as lost, and what is written down about every run."""

import json
import math

import pytest
import torch

from igpt.callbacks import LossGuard
from igpt.callbacks.loss_guard import LossWatch
from igpt.checkpoints.format import newest_intact
from igpt.system.errors import UserError
from tests.stopping import stop


def seen(losses, factor=1.5, margin=0.3, patience=3):
    watch = LossWatch(factor, margin, patience)
    return [watch.see(loss) is not None for loss in losses]


def test_a_falling_loss_is_never_lost():
    assert not any(seen([3 * 0.99**step for step in range(500)]))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_lost_at_once(loss):
    assert seen([2.0, loss]) == [False, True]


def test_a_spike_must_last_for_the_patience():
    assert seen([2.0, 9.0, 9.0, 9.0]) == [False, False, False, True]
    assert seen([2.0, 9.0, 9.0, 2.1, 9.0, 9.0]) == [False] * 6


def test_a_spike_exceeds_the_factor_and_the_margin():
    assert seen([2.0] + [3.0] * 3)[-1] is False  # just at 1.5 times
    assert seen([2.0] + [3.01] * 3)[-1] is True
    assert seen([0.01] + [0.3] * 3)[-1] is False  # thirty times, but little
    assert seen([0.01] + [0.32] * 3)[-1] is True


def test_the_lowest_loss_is_the_measure_not_the_first():
    assert seen([5.0, 1.0, 4.0, 4.0, 4.0])[-1] is True


@pytest.mark.parametrize("wrong", [{"factor": 0.5}, {"margin": -1}, {"patience": 0}, {"every_n_steps": 0}])
def test_a_guard_with_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match="LossGuard"):
        LossGuard(**wrong)


told = []  # what the last guarded run said


def guarded(igpt, run, folder, *options, every=4, lost=False):
    callbacks = json.dumps([{"class_path": "igpt.callbacks.LossGuard", "init_args": {"every_n_steps": every}}])
    code, _, err = igpt("fit", "--config", run.config, "--runs_dir", folder, "--trainer.callbacks", callbacks,
                        "--samples.num", 0, "--samples.completions", 0, *options)  # fmt: skip
    assert code == (76 if lost else 0), err
    told[:] = [line for line in err.splitlines() if line.startswith("igpt fit:")]
    return json.loads((folder / "mini" / "result.json").read_text())


def test_a_whole_run_writes_its_last_validation_loss(digits_run, igpt, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = guarded(igpt, digits_run, tmp_path)
    events = EventAccumulator(str(tmp_path / "mini"))
    events.Reload()
    assert result["val_loss"] == pytest.approx(events.Scalars("val/loss")[-1].value, rel=1e-6)
    assert (result["val_step"], result["steps"], result["stopped"]) == (30, 30, None)


def test_a_run_with_an_absurd_rate_is_stopped_and_says_why(digits_run, igpt, tmp_path):
    result = guarded(igpt, digits_run, tmp_path, "--model.init_args.learning_rate", 1000, lost=True)
    assert result["steps"] < 30
    assert "the training loss" in result["stopped"]


@pytest.fixture
def nan_at_step_5(monkeypatch):
    from igpt.modules import Autoregressive

    original = Autoregressive.training_step

    def poisoned(self, batch, batch_idx):
        if self.global_step == 5:
            with torch.no_grad():
                next(self.transformer.parameters()).fill_(math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Autoregressive, "training_step", poisoned)


@pytest.mark.parametrize(("every", "seen_by"), [(4, 8), (2, 6)])  # the guard looks every 4 steps
def test_nan_in_the_weights_stops_the_run_before_the_next_checkpoint(
    digits_run, igpt, tmp_path, nan_at_step_5, every, seen_by
):
    result = guarded(igpt, digits_run, tmp_path, "--checkpoint.every_n_train_steps", every, lost=True)
    assert result["stopped"] == f"the training loss became nan by step {seen_by}"
    assert result["steps"] == seen_by
    assert result["val_loss"] is None
    folder = tmp_path / "mini" / "checkpoints"
    assert sorted(path.name for path in folder.glob("step=*.ckpt"))[-1] == "step=0000004.ckpt"
    assert newest_intact(folder, lambda step: step < 5) == folder / "step=0000004.ckpt"
    assert told[-1] == f"igpt fit: {result['stopped']}; the last good checkpoint: {folder / 'step=0000004.ckpt'}"


def test_a_guard_looks_at_the_log_points_unless_it_is_told_otherwise(digits_run, igpt, tmp_path, nan_at_step_5):
    options = ["--trainer.log_every_n_steps", 7, "--checkpoint.every_n_train_steps", 0]
    result = guarded(igpt, digits_run, tmp_path, *options, every=None, lost=True)
    assert result["stopped"] == "the training loss became nan by step 7"


@pytest.mark.parametrize("signalled", [6, 7])  # a step on which the guard would not look, and one on which it does
def test_a_signal_to_a_lost_run_saves_no_lost_weights(digits_run, igpt, tmp_path, nan_at_step_5, signalled):
    options = ["--checkpoint.every_n_train_steps", 4, *stop(signalled)]
    result = guarded(igpt, digits_run, tmp_path, *options, lost=True)
    assert result["stopped"] == f"the training loss became nan by step {signalled + 1}"
    folder = tmp_path / "mini" / "checkpoints"
    assert (folder / "last.ckpt").resolve().name == "step=0000004.ckpt"
    assert len(told) == 1


def test_a_guard_goes_on_watching_where_its_checkpoint_stood():
    losses = torch.tensor([3.0, 2.0, 9.0, 9.0, 9.0, 9.0])

    def watching(guard, part, first):
        for number, loss in enumerate(part, first):
            guard._unseen.append((number, loss))
        return guard._look(), guard.wrong_from

    whole = watching(LossGuard(patience=3), losses, 0)
    assert whole == ("the training loss rose to 9 from 2", 2)
    for cut in range(1, 5):
        first, second = LossGuard(patience=3), LossGuard(patience=3)
        watching(first, losses[:cut], 0)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert watching(second, losses[cut:], cut) == whole


def test_a_guard_goes_on_from_a_checkpoint_of_igpt_0_1():
    guard = LossGuard(patience=4)
    state = {
        "minimum": 2.0,
        "above": 2,
        "unseen": [9.0, 9.0],
        "steps": [5, 6, 7, 8],
        "val_loss": None,
        "val_step": None,
    }
    guard.load_state_dict(state)
    assert guard._look() == "the training loss rose to 9 from 2"
    assert guard.wrong_from == 5
