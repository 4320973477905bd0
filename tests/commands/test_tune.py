"""`igpt tune`: with a stand-in for training where only its order matters, and with the real one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import igpt.commands.tune as command
from igpt.system import only_writer
from tests.forked import Forked

LOSSES = {0.01: None, 0.003: 1.5, 0.001: 1.4, 0.0003: 1.6, 0.0001: 1.2}


class StandIn:
    """Instead of training, gives each rate its loss of LOSSES; can hang like a long run."""

    def __init__(self, hang_at=None):
        self.hang_at, self.rates = hang_at, []

    def __call__(self, config, log):
        settings = yaml.safe_load(config.read_text())
        rate = settings["model"]["init_args"]["learning_rate"]
        self.rates.append(rate)
        log.write_text("training\n")
        if rate == self.hang_at:
            time.sleep(600)
        report = Path(settings["trainer"]["callbacks"][-1]["init_args"]["out"])
        report.parent.mkdir(parents=True, exist_ok=True)
        stopped = None if LOSSES[rate] else "the training loss became nan by step 3"
        report.write_text(json.dumps({"val_loss": LOSSES[rate], "val_step": 9, "steps": 9, "stopped": stopped}))
        return 76 if stopped else 0  # as `igpt fit`


def tune_that_hangs(config, out):
    command.fit = StandIn(hang_at=0.001)
    command.tune(config, out=out)


@pytest.fixture
def stand_in(monkeypatch):
    fake = StandIn()
    monkeypatch.setattr(command, "fit", fake)
    return fake


@pytest.fixture
def config(digits_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mini.yaml"
    path.write_text(f"# header\n{digits_run.config.read_text()}")
    return path


def chosen(folder):
    return yaml.safe_load((folder / "mini.yaml").read_text())["model"]["init_args"]["learning_rate"]


def test_rates_are_tried_until_the_loss_rises_and_the_best_is_written(stand_in, config, igpt):
    code, out, err = igpt("tune", "--config", "mini.yaml", "--rates", "0.01,0.003,0.001,0.0003,0.0001")
    assert code == 0, err
    assert stand_in.rates == [0.01, 0.003, 0.001, 0.0003]
    folder = Path("runs/mini_tune")
    wanted = yaml.safe_load(config.read_text())
    wanted["model"]["init_args"]["learning_rate"] = 0.001
    assert yaml.safe_load((folder / "mini.yaml").read_text()) == wanted
    report = json.loads((folder / "tune.json").read_text())
    assert report["chosen"] == 0.001
    assert [(row["rate"], row["val_loss"]) for row in report["results"]] == list(LOSSES.items())[:4]
    assert "nan" in report["results"][0]["failed"]
    assert "0.0001        -   not tried" in out


def test_finished_rates_are_not_run_again_and_more_can_be_added(stand_in, config, igpt):
    assert igpt("tune", "--config", "mini.yaml", "--rates", "0.003,0.001", "--out", "t")[0] == 0
    code, _, _ = igpt("tune", "--config", "mini.yaml", "--out", "t", "--rates", "0.003,0.001,0.0003")
    assert code == 0
    assert stand_in.rates == [0.003, 0.001, 0.0003]
    assert chosen(Path("t")) == 0.001


def test_a_loss_still_falling_at_the_last_rate_is_said(stand_in, config, igpt):
    _, out, _ = igpt("tune", "--config", "mini.yaml", "--rates", "0.003,0.001")
    assert "has not started to rise" in out


def test_a_changed_config_is_refused_and_a_changed_comment_is_not(stand_in, config, igpt):
    assert igpt("tune", "--config", "mini.yaml", "--out", "t")[0] == 0
    config.write_text("# another word\n" + config.read_text())
    assert igpt("tune", "--config", "mini.yaml", "--out", "t")[0] == 0
    before = Path("t/tune.json").read_bytes()
    code, _, err = igpt("tune", "--config", "mini.yaml", "--out", "t", "--overrides", "[trainer.max_steps=7]")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "trainer.max_steps" in err
    assert Path("t/tune.json").read_bytes() == before
    assert len(stand_in.rates) == 4


def test_when_every_rate_fails_no_config_is_written(stand_in, config, igpt):
    code, _, err = igpt("tune", "--config", "mini.yaml", "--rates", "0.01")
    assert code == 2
    assert "--rates 0.01: every run failed" in err
    assert not Path("runs/mini_tune/mini.yaml").exists()


def test_killed_and_started_again_it_goes_on_with_the_rate_that_was_cut_off(stand_in, config, igpt):
    process = Forked(tune_that_hangs, "mini.yaml", "t")
    try:
        wait_for(Path("t/lr_0.001.log").exists)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Path("t/mini.yaml").exists()
    code, _, err = igpt("tune", "--config", "mini.yaml", "--out", "t")
    assert code == 0, err
    assert stand_in.rates == [0.001, 0.0003]
    assert igpt("tune", "--config", "mini.yaml", "--out", "whole")[0] == 0
    assert chosen(Path("t")) == chosen(Path("whole")) == 0.001


def test_two_at_once_in_one_folder_are_refused(stand_in, config, igpt):
    with only_writer(Path("t"), "wait"):
        code, _, err = igpt("tune", "--config", "mini.yaml", "--out", "t")
    assert code == 2
    assert "another igpt writes to t; wait until it has ended, or give another --out" in err


ATTACHED = """
import runpy, sys, time, igpt.cli
igpt.cli.main = lambda: time.sleep(600)
sys.argv[1:] = ["--attached", "fit"]
runpy.run_module("igpt", run_name="__main__")
"""


def test_a_run_ends_when_its_tune_has_ended():
    with subprocess.Popen([sys.executable, "-c", ATTACHED], stdin=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.stdin.close()  # as the system does for a process that was killed
        assert process.wait(timeout=10) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--config", "gone.yaml"], "gone.yaml"),
        (["--config", "mini.yaml", "--rates", "fast"], "--rates"),
        (["--config", "mini.yaml", "--rates", "0"], "--rates"),
        (["--config", "mini.yaml", "--overrides", "[trainer.max_steps]"], "KEY=VALUE"),
        (["--config", "mini.yaml", "--overrides", "[ckpt_path=last]"], "ckpt_path"),
        (["--config", "list.yaml"], "list.yaml"),
        (["--config", "broken.yaml"], "broken.yaml"),
        (["--config", "mini.yaml", "--overrides", "[trainer.max_step=3]"], "max_step"),  # refused by the real fit
        ([], "--config"),
    ],
    ids=lambda value: " ".join(value[2:] or value) if isinstance(value, list) else "",
)
def test_what_is_off_is_one_line_and_leaves_nothing(config, igpt, tmp_path, options, word):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = igpt("tune", *options)
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert word in err
    assert sorted(tmp_path.rglob("*")) == before


REAL = ["--rates", "3000,0.03", "--overrides",
        "[trainer.max_steps=20, trainer.val_check_interval=10, samples.num=0, samples.completions=0]"]  # fmt: skip


@pytest.mark.slow
def test_a_real_tune_killed_with_its_run_picks_the_same_rate(config, igpt, tmp_path):
    code, _, err = igpt("tune", "--config", "mini.yaml", "--out", "whole", *REAL)
    assert code == 0, err
    whole = json.loads(Path("whole/tune.json").read_text())
    assert whole["results"][0]["failed"]
    assert chosen(Path("whole")) == whole["chosen"] == 0.03

    process = subprocess.Popen([sys.executable, "-m", "igpt", "tune", "--config", "mini.yaml", "--out", "t", *REAL])
    try:
        wait_for(Path("t/lr_0.03/config.yaml").exists)
        runs = children(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if sys.platform == "linux":
        assert runs
        wait_for(lambda: not any(alive(pid) for pid in runs), seconds=5)
    code, _, err = igpt("tune", "--config", "mini.yaml", "--out", "t", *REAL)
    assert code == 0, err
    again = json.loads(Path("t/tune.json").read_text())
    losses = [[row["val_loss"] for row in report["results"]] for report in (whole, again)]
    assert losses[0] == losses[1]
    assert again["chosen"] == whole["chosen"]

    code, _, err = igpt("fit", "--config", "t/mini.yaml", "--runs_dir", "final")
    assert code == 0, err
    stored = yaml.safe_load(Path("final/mini/config.yaml").read_text())
    assert stored["model"]["init_args"]["learning_rate"] == 0.03


def wait_for(condition, seconds=180):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def children(pid):
    """Process ids of the children, from Linux's /proc."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
