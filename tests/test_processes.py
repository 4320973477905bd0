"""Two processes train what one trains, stop in good order, and what they save is of use to one again."""

import random
import re
import signal
import subprocess
import time

import pytest
import torch

from igpt.checkpoint import read_checkpoint, step_checkpoints
from igpt.loading import load
from tests.processes import environment, fit_command, losses, run, write_config
from tests.stopping import stop

KINDS = ("AR", "BERT", "joint")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    from igpt.cli import main

    home = tmp_path_factory.mktemp("processes")
    assert main(["palette", "--data", "Digits", "--colors", "17", "--out", str(home / "digits.npy")]) == 0
    for kind in KINDS:
        write_config(home, kind)
    return home


@pytest.fixture(scope="module")
def fitted(home):
    """`fitted(kind, strategy)` is the folder of a whole run, made once; without a strategy in one process."""
    made = {}

    def of(kind, strategy=None):
        if (kind, strategy) not in made:
            code, printed = run(fit_command(home, f"whole_{strategy}", kind, strategy), home)
            assert code == 0, printed
            made[kind, strategy] = home / f"whole_{strategy}" / kind
        return made[kind, strategy]

    return of


def tokens():
    return torch.randint(17, (4, 64), generator=torch.Generator().manual_seed(0))


def logits(path):
    module = load(path).module
    with torch.inference_mode():
        return module.core.transformer(tokens(), causal=module.core.causal)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one_with_their_common_batch(fitted, kind, strategy):
    one, two = losses(fitted(kind)), losses(fitted(kind, strategy))
    assert set(one) == set(two) == set(range(20))
    steps = range(20)
    expected, found = (torch.tensor([max(run[step]) for step in steps]) for run in (one, two))
    assert expected[0] - expected[-1] > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_their_checkpoint_is_one_file_that_one_process_loads(fitted, strategy):
    path = fitted("AR", strategy) / "checkpoints" / "last.ckpt"
    assert path.is_file()
    assert logits(path).std() > 0.1
    torch.testing.assert_close(logits(path), logits(fitted("AR") / "checkpoints" / "last.ckpt"), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_run_saved_in_parts_resumes_with_the_same_losses_and_becomes_one_file_with_the_same_logits(
    home, fitted, igpt
):
    code, printed = run(fit_command(home, "cut", "AR", "parts", *stop(7)), home)
    assert code == 75, printed
    folder = home / "cut" / "AR" / "checkpoints"
    assert list(step_checkpoints(folder)) == [10, 5]  # they agree every ten steps
    assert all(path.is_dir() for path in step_checkpoints(folder).values())
    assert (folder / "last.ckpt").resolve().name == "step=0000010.ckpt"
    code, printed = run(fit_command(home, "cut", "AR", "parts", "--ckpt_path", "last"), home)
    assert code == 0, printed
    assert not list(folder.glob(".*"))
    assert losses(home / "cut" / "AR") == losses(fitted("AR", "sharded"))
    last = folder / "last.ckpt"
    code, _, err = igpt("probe", "--ckpt", last)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--format checkpoint" in err
    code, _, err = igpt("export", "--ckpt", last, "--format", "checkpoint", "--out", home / "one")
    assert code == 0, err
    whole = fitted("AR", "sharded") / "checkpoints" / "last.ckpt"
    assert load(home / "one" / "model.ckpt").step == 20
    assert torch.equal(logits(home / "one" / "model.ckpt"), logits(whole))


@pytest.mark.slow
def test_recompute_and_compile_change_no_loss_of_a_sharded_run(home, fitted):
    options = ["--model.init_args.compile", "true", "--model.init_args.recompute", "true"]
    code, printed = run(fit_command(home, "compiled", "AR", "sharded", *options), home)
    assert code == 0, printed
    one, other = losses(fitted("AR")), losses(home / "compiled" / "AR")
    for step in range(20):
        assert max(other[step]) == pytest.approx(max(one[step]), abs=1e-5)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_ends_both_with_75_five_times_of_five(home):
    seed = time.time_ns() % 10**6
    rng = random.Random(seed)
    options = ["--trainer.max_steps", 3000, "--trainer.val_check_interval", 100, "--checkpoint.keep", 2]
    begun = 0
    for count in range(5):
        command = fit_command(home, "stopped", "BERT", "ddp", *options, "--ckpt_path", "last")
        folder = home / "stopped" / "BERT" / "checkpoints"
        with subprocess.Popen(
            command, cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            while next(iter(step_checkpoints(folder)), 0) <= begun:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 1))
            process.send_signal(signal.SIGTERM)
            printed = process.stdout.read()  # until the last process has ended
            assert process.wait(timeout=60) == 75, (seed, count, printed)
        assert "Traceback" not in printed, printed
        step = int(re.search(r"stopped by SIGTERM at step (\d+); saved", printed)[1])
        assert read_checkpoint(folder / "last.ckpt")["global_step"] == step > begun
        begun = step


def test_pictures_from_shared_out_weights_are_refused_in_one_line(home, igpt):
    _, _, _, *arguments = fit_command(home, "refused", "AR", "sharded", "--samples.num", 4)
    code, _, err = igpt(*arguments)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "--samples.num 0" in err
    assert not (home / "refused").exists()
