"""Where a run saves, who may write there, and what becomes of what was there before."""

import os
import time
from pathlib import Path

import pytest
import torch
import yaml

from igpt.system.locks import only_writer, reader
from tests import forked

FEW = ("--samples.num", 0, "--samples.completions", 0, "--trainer.limit_val_batches", 0)


def content(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))


@pytest.fixture
def fit(digits_run, igpt, tmp_path):
    def command(*options, steps=2):
        return igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, *FEW,
                    "--trainer.max_steps", steps, *options)  # fmt: skip

    return command


def steps(folder):
    return sorted(int(path.stem[5:]) for path in folder.glob("step=*.ckpt"))


def refused(result, *words):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("igpt")]
    assert (code, len(lines)) == (2, 1), err
    for word in words:
        assert word in lines[0]


# Two at once


def test_a_second_training_of_a_run_is_refused_and_the_first_is_untouched(fit, tmp_path):
    assert fit()[0] == 0
    before = content(tmp_path)
    with only_writer(tmp_path / "mini", "wait"):
        refused(fit(), "another igpt writes to", "--name")
        refused(fit("--ckpt_path", "last", steps=4), "another igpt writes to")
    assert content(tmp_path) == before
    assert fit("--ckpt_path", "last", steps=4)[0] == 0


def test_a_run_that_is_read_is_not_moved_aside_but_may_go_on(fit, tmp_path):
    assert fit()[0] == 0
    before = content(tmp_path)
    with reader(tmp_path / "mini"):
        refused(fit(), "another igpt reads", "--name")
        assert content(tmp_path) == before
        assert fit("--ckpt_path", "last", steps=4)[0] == 0


def test_a_runs_own_config_says_what_the_given_one_said_also_where_that_is_null(igpt, digits_run, tmp_path):
    words = ["--config", digits_run.folder / "config.yaml", "--runs_dir", tmp_path, "--trainer.max_steps", 1]
    code, _, err = igpt("fit", *words, "--trainer.val_check_interval", 60)  # more batches than an epoch has
    assert code == 0, err
    given, own = (yaml.safe_load(file.read_text()) for file in (digits_run.config, tmp_path / "mini" / "config.yaml"))
    assert given["trainer"]["check_val_every_n_epoch"] is own["trainer"]["check_val_every_n_epoch"] is None


@pytest.mark.parametrize("verb", ["test", "probe"])
def test_evaluations_say_that_they_read_a_run_as_long_as_they_do(fit, tmp_path, verb):
    assert fit()[0] == 0
    run = tmp_path / "mini"
    words = ["--config", run / "config.yaml", "--runs_dir", tmp_path, "--ckpt_path", "last"]
    words = words if verb == "test" else ["--ckpt", run / "checkpoints" / "last.ckpt"]
    seen = []
    with forked.igpt(verb, *words) as process:
        while process.poll() is None:
            seen += tmp_path.glob(".mini.*.reader.lock")
            time.sleep(0.005)
    assert process.returncode == 0
    assert seen
    assert not list(tmp_path.glob(".mini.*"))


def test_of_two_trainings_started_at_once_one_trains_and_one_says_why_not(digits_run, tmp_path):
    words = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path, *FEW, "--trainer.max_steps", 200]
    started = [forked.igpt(*words) for _ in range(2)]
    errors = [process.communicate()[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2], errors
    assert any("another igpt writes to" in text for text in errors)
    assert steps(tmp_path / "mini" / "checkpoints")[-1] == 200
    assert not (tmp_path / "mini.1").exists()


def test_other_runs_of_the_same_folder_train_beside_it(fit, tmp_path):
    with only_writer(tmp_path / "mini", "wait"):
        assert fit("--name", "other")[0] == 0


# An earlier run


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.val_check_interval", 500, "--trainer.check_val_every_n_epoch", 1, "--trainer.limit_val_batches", 1),
        ("--trainer.limit_train_batches", 0),
        ("--trainer.overfit_batches", 1),
    ],
    ids=["an interval longer than an epoch", "nothing to train on", "another order"],
)
def test_a_command_that_fails_moves_nothing_aside(fit, tmp_path, options):
    assert fit()[0] == 0
    before = content(tmp_path)
    assert fit(*options)[0] != 0
    assert content(tmp_path) == before


def test_a_first_command_that_fails_leaves_no_run(fit, tmp_path):
    assert fit("--trainer.val_check_interval", 500, "--trainer.check_val_every_n_epoch", 1,
               "--trainer.limit_val_batches", 1)[0] != 0  # fmt: skip
    assert content(tmp_path) == []


@pytest.mark.parametrize("name", [".", "..", "a/b", "/tmp/elsewhere", ""])
def test_a_name_is_that_of_one_folder(fit, tmp_path, name):
    refused(fit("--name", name), "--name", "--runs_dir")
    assert content(tmp_path) == []


def test_what_is_no_run_is_not_moved(fit, tmp_path):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "notes.txt").write_text("mine")
    refused(fit(), "no run of igpt", "--name")
    assert content(tmp_path) == ["mini", "mini/notes.txt"]


def test_a_folder_of_runs_is_not_moved(fit, tmp_path):
    inner = tmp_path / "mini" / "one"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "config.yaml").write_text("name: one")
    before = content(tmp_path)
    refused(fit(), "holds other runs", "one")
    assert content(tmp_path) == before


def test_a_link_is_not_moved(fit, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "config.yaml").write_text("name: one")
    (tmp_path / "mini").symlink_to("disk")
    refused(fit(), "is a link")
    assert content(tmp_path) == ["disk", "disk/config.yaml", "mini"]


def test_an_empty_folder_is_used(fit, tmp_path):
    (tmp_path / "mini").mkdir()
    assert fit()[0] == 0
    assert steps(tmp_path / "mini" / "checkpoints") == [2]
    assert not (tmp_path / "mini.1").exists()


# last


def damage(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damaged!" * 8)


@pytest.mark.parametrize("state", ["is missing", "is damaged", "points to a file that is gone"])
def test_last_is_the_newest_that_is_intact(fit, tmp_path, state):
    assert fit("--checkpoint.every_n_train_steps", 2, steps=6)[0] == 0
    folder = tmp_path / "mini" / "checkpoints"
    if state == "is missing":
        (folder / "last.ckpt").unlink()
    elif state == "is damaged":
        damage(folder / "step=0000006.ckpt")
    else:
        (folder / "step=0000006.ckpt").unlink()
    newest = 6 if state == "is missing" else 4
    code, _, err = fit("--ckpt_path", "last", "--checkpoint.every_n_train_steps", 2, steps=8)
    assert code == 0, err
    assert f"last.ckpt {state}; taking step=000000{newest}.ckpt" in err
    assert steps(folder)[-1] == 8
    assert (folder / "last.ckpt").resolve().name == "step=0000008.ckpt"
    assert not (tmp_path / "mini.1").exists()


def test_where_no_checkpoint_can_be_read_last_is_an_error_and_nothing_is_lost(fit, tmp_path):
    assert fit()[0] == 0
    damage(tmp_path / "mini" / "checkpoints" / "step=0000002.ckpt")
    before = content(tmp_path)
    refused(fit("--ckpt_path", "last"), "no checkpoint in", "can be read", "start anew")
    assert content(tmp_path) == before


def test_where_there_is_none_last_begins_the_run(fit, tmp_path):
    assert fit("--ckpt_path", "last")[0] == 0
    assert steps(tmp_path / "mini" / "checkpoints") == [2]


LOGGERS = {
    "no logger": lambda home: ("--trainer.logger", "false"),
    "another logger": lambda home: (
        *("--trainer.logger", "lightning.pytorch.loggers.CSVLogger"),
        *("--trainer.logger.save_dir", home / "csv"),
    ),
    "a folder of its own": lambda home: ("--checkpoint.dirpath", home / "kept"),
}


@pytest.mark.parametrize("kind", LOGGERS)
def test_a_run_goes_on_from_where_it_saves_whatever_its_logger(fit, igpt, digits_run, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    options = LOGGERS[kind](tmp_path)
    folder = tmp_path / ("kept" if kind == "a folder of its own" else "mini/checkpoints")
    assert fit(*options)[0] == 0
    assert steps(folder) == [2]
    code, _, err = fit(*options, "--ckpt_path", "last", steps=4)
    assert code == 0, err
    assert steps(folder) == [2, 4]
    config = yaml.safe_load((tmp_path / "mini" / "config.yaml").read_text())
    assert config["name"] == "mini"
    assert len((tmp_path / "mini" / "commands.txt").read_text().splitlines()) == 2
    code, _, err = igpt("test", "--config", digits_run.config, "--runs_dir", tmp_path, *options, "--ckpt_path", "last")
    assert code == 0, err
    assert (tmp_path / "mini" / "scores.json").exists() == (kind != "no logger")
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_of_another_run_are_not_written_over(fit, tmp_path):
    assert fit("--checkpoint.dirpath", tmp_path / "kept")[0] == 0
    refused(fit("--checkpoint.dirpath", tmp_path / "kept", "--name", "other"), "--checkpoint.dirpath", "another folder")
    assert steps(tmp_path / "kept") == [2]


def test_with_keep_a_clock_that_was_wrong_costs_no_checkpoint(fit, tmp_path):
    keep = ("--checkpoint.every_n_train_steps", 1, "--checkpoint.keep", 2)
    assert fit(*keep, steps=4)[0] == 0
    folder = tmp_path / "mini" / "checkpoints"
    for path in folder.glob("step=*.ckpt"):
        os.utime(path, (4e9, 4e9))
    assert fit(*keep, "--ckpt_path", "last", steps=6)[0] == 0
    assert steps(folder) == [5, 6]
    assert (folder / "last.ckpt").resolve().name == "step=0000006.ckpt"


def test_going_on_from_further_back_keeps_what_it_writes(fit, tmp_path):
    every = ("--checkpoint.every_n_train_steps", 2)
    assert fit(*every, steps=8)[0] == 0
    folder = tmp_path / "mini" / "checkpoints"
    back = folder / "step=0000002.ckpt"
    assert fit(*every, "--checkpoint.keep", 2, "--ckpt_path", back, steps=4)[0] == 0
    assert steps(folder) == [2, 4]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 4


def test_an_older_file_of_the_last_step_does_not_hide_that_the_end_was_not_written(fit, digits_run, tmp_path):
    assert fit("--checkpoint.every_n_train_steps", 2, steps=4)[0] == 0
    folder = tmp_path / "mini" / "checkpoints"
    whole = (folder / "step=0000004.ckpt").read_bytes()
    words = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path, *FEW, "--trainer.max_steps", 4,
             "--ckpt_path", folder / "step=0000002.ckpt"]  # fmt: skip
    process = forked.igpt(*words, largest=30_000)
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "the end of the training could not be written" in err
    assert (folder / "step=0000004.ckpt").read_bytes() == whole


# Going on


def test_a_resumed_run_says_what_it_is_given_otherwise(fit, tmp_path):
    assert fit()[0] == 0
    _, _, err = fit("--ckpt_path", "last", "--data.init_args.seed", 5, "--data.init_args.batch_size", 16, steps=4)
    line = next(line for line in err.splitlines() if "goes on with" in line)
    for words in ("max_steps 2 (now 4)", "images_a_step 32 (now 16)", "data.seed 0 (now 5)", "--schedule continue"):
        assert words in line
    _, _, err = fit("--ckpt_path", "last", "--data.init_args.seed", 5, "--data.init_args.batch_size", 16, steps=4)
    assert "goes on with" not in err


def rates(fit, tmp_path, monkeypatch, schedule):
    """The learning rate of each step of a run of 10 steps that goes on to 20."""
    seen = []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    warm = ("--model.init_args.warmup_steps", 2, "--schedule", schedule)
    assert fit(*warm, steps=10)[0] == 0
    stop = ('--trainer.callbacks+={"class_path": "tests.stopping.Stop", "init_args": {"step": 14}}',)
    assert fit(*warm, "--ckpt_path", "last", *stop, steps=20)[0] == 75  # and resumed once more
    assert fit(*warm, "--ckpt_path", "last", steps=20)[0] == 0
    return seen


def test_a_schedule_that_continues_is_one_cosine_to_the_new_end(fit, tmp_path, monkeypatch):
    seen = rates(fit, tmp_path, monkeypatch, "continue")
    assert len(seen) == 20
    assert seen[9] < 0.002 < seen[10]
    assert seen[10:] == sorted(seen[10:], reverse=True)


def test_a_schedule_that_restarts_warms_up_once_and_falls_to_zero_again(fit, tmp_path, monkeypatch):
    seen = rates(fit, tmp_path, monkeypatch, "restart")
    assert seen[10:] == pytest.approx(seen[:10])


def test_damaged_records_do_not_keep_a_run_from_going_on(fit, tmp_path):
    assert fit()[0] == 0
    folder = tmp_path / "mini"
    for name in ("config.yaml", "commands.txt", "hparams.yaml"):
        (folder / name).write_bytes(b"\xff\x00{[")
    (folder / "scores.json").mkdir()
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()
    code, _, err = fit("--ckpt_path", "last", steps=4)
    assert code == 0, err
    assert "config.yaml" in err
    assert steps(folder / "checkpoints") == [2, 4]


# Steps


def test_validation_counts_optimizer_steps_whatever_is_accumulated(fit, digits_run, igpt, tmp_path, monkeypatch):
    from igpt.modules import Autoregressive

    seen = []
    end = Autoregressive.on_validation_epoch_end

    def watched(self):
        if not self.trainer.sanity_checking:
            seen.append(self.trainer.global_step)
        end(self)

    monkeypatch.setattr(Autoregressive, "on_validation_epoch_end", watched)
    assert fit("--trainer.accumulate_grad_batches", 3, "--trainer.val_check_interval", 2,
               "--trainer.limit_val_batches", 1, steps=6)[0] == 0  # fmt: skip
    assert seen == [2, 4, 6]


def test_the_learning_rate_is_logged_once_a_step(fit, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert fit("--trainer.accumulate_grad_batches", 3, "--trainer.log_every_n_steps", 1, steps=4)[0] == 0
    events = EventAccumulator(str(tmp_path / "mini"))
    events.Reload()
    assert [event.step for event in events.Scalars("lr-Adam")] == [0, 1, 2, 3]


def test_ctrl_c_saves_and_ends_with_130(fit, tmp_path):
    stop = ('--trainer.callbacks+={"class_path": "tests.stopping.Stop", "init_args": {"step": 3, "how": "SIGINT"}}',)
    code, _, err = fit(*stop, steps=50)
    assert code == 130, err
    assert "stopped by Ctrl-C at step 4; saved" in err
    assert steps(tmp_path / "mini" / "checkpoints") == [4]


def test_a_loss_that_is_not_finite_ends_a_run_by_itself(fit, tmp_path, monkeypatch):
    from igpt.modules import Autoregressive

    step = Autoregressive.training_step

    def broken(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.global_step == 5 else loss

    monkeypatch.setattr(Autoregressive, "training_step", broken)
    code, _, err = fit("--checkpoint.every_n_train_steps", 2, steps=50)
    assert code == 76, err
    assert "the training loss became nan" in err
    assert f"the last good checkpoint: {Path(tmp_path) / 'mini' / 'checkpoints' / 'step=0000004.ckpt'}" in err


SHORT = ["limit_train_batches 1", "limit_train_batches 0.5",
         "max_time 00:00:10:00"]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*logging interval")
@pytest.mark.parametrize("option", SHORT)
def test_the_trainers_options_for_short_runs_work(fit, tmp_path, option):
    name, value = option.split()
    code, _, err = fit(f"--trainer.{name}", value, steps=3)
    assert code == 0, err
    assert steps(tmp_path / "mini" / "checkpoints") == [3]


def test_a_fast_dev_run_touches_nothing(fit, tmp_path):
    assert fit("--trainer.fast_dev_run", "true")[0] == 0
    assert content(tmp_path) == []
