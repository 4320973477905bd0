"""What a run does when it is asked to stop."""

import os
import re
import signal
import threading
import time

import pytest

from igpt.checkpoints.format import read_checkpoint
from tests import forked
from tests.stopping import stop


def arguments(run, folder, *options):
    fit = ["fit", "--config", run.config, "--runs_dir", folder, "--samples.num", 0, "--samples.completions", 0]
    return [*fit, *options]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_run_behind_its_step_with_75_and_says_how_to_go_on(digits_run, igpt, tmp_path, name):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    code, _, err = igpt(*arguments(digits_run, tmp_path, *stop(7, name)))
    assert code == 75, err
    lines = [line for line in err.splitlines() if line.startswith("igpt")]
    assert len(lines) == 1
    assert re.search(rf"stopped by {name} at step 8; saved \S*/last.ckpt; .*--ckpt_path last$", lines[0])
    assert "Traceback" not in err
    assert read_checkpoint(tmp_path / "mini" / "checkpoints" / "last.ckpt")["global_step"] == 8
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before


def test_accumulated_gradients_are_finished_before_the_run_is_saved(digits_run, igpt, tmp_path):
    code, _, err = igpt(*arguments(digits_run, tmp_path, "--trainer.accumulate_grad_batches", 3, *stop(4)))
    assert code == 75, err
    content = read_checkpoint(tmp_path / "mini" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 5
    assert content["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 0, "images": 5 * 3 * 32}]


def test_a_signal_in_the_last_step_lets_the_run_end(digits_run, igpt, tmp_path):
    code, _, err = igpt(*arguments(digits_run, tmp_path, *stop(29)))
    assert code == 0, err
    assert read_checkpoint(tmp_path / "mini" / "checkpoints" / "last.ckpt")["global_step"] == 30


def test_a_signal_in_a_validation_does_not_wait_for_its_end(digits_run, igpt, tmp_path):
    code, _, err = igpt(*arguments(digits_run, tmp_path, *stop(15, "SIGUSR1", "validation")))
    assert code == 75, err
    content = read_checkpoint(tmp_path / "mini" / "checkpoints" / "last.ckpt")
    assert (content["global_step"], content["unfinished_step"]["validation"]) == (15, True)


@pytest.fixture
def process(digits_run, tmp_path):
    """A real `igpt fit` that hangs in the batch after step 3, until it is killed."""
    options = arguments(digits_run, tmp_path, "--checkpoint.every_n_train_steps", 2, *stop(3, "hang"))
    with forked.igpt(*options) as process:
        while not (tmp_path / "mini" / "hangs").exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield process
        process.kill()


def test_a_second_signal_ends_at_once_and_an_echo_of_the_first_does_not(process, tmp_path):
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    assert "second signal" in process.communicate()[1]
    assert read_checkpoint(tmp_path / "mini" / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.parametrize("verb", ["probe", "predict"])
def test_sigterm_ends_the_computing_of_features_at_once_and_removes_what_was_written(digits_run, igpt, tmp_path, verb):
    options = {
        "probe": ["--ckpt", digits_run.checkpoint, "--out", tmp_path / "out"],
        "predict": ["--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt_path", digits_run.checkpoint],
    }[verb]
    if verb == "probe":
        options += ["--store", tmp_path / "store"]
    seen = []

    def watch():
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            seen.extend(tmp_path.rglob(".*.partial"))
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code, _, err = igpt(verb, *options)
    watcher.join()
    assert (code, err.splitlines()[-1]) == (143, f"igpt {verb}: ended by SIGTERM")
    assert len(seen) == 1
    assert not list(tmp_path.rglob(".*.partial"))
    assert not list(tmp_path.rglob("manifest.json"))
