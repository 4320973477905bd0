"""Two processes train what one trains, stop in good order, and what they save is of use to one again."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from igpt.checkpoints.format import misfits, read_checkpoint, step_checkpoints
from igpt.modules.loading import load
from tests.obstacles import obstacles
from tests.processes import STRATEGIES, environment, fit_command, losses, run, write_config
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
    """`fitted(kind, strategy)` is the folder of a whole run, made once; without a strategy in this one process."""
    from igpt.cli import main

    made = {}

    def of(kind, strategy=None):
        if (kind, strategy) not in made:
            command = fit_command(home, f"whole_{strategy}", kind, strategy)
            code, printed = run(command, home) if strategy else (main(command[3:]), "")
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


QUICK = ["ddp", pytest.param("sharded", marks=pytest.mark.slow)]  # slow: another run of two processes
SHARING = [(kind, strategy) for strategy in ("ddp", "sharded") for kind in KINDS]


@pytest.mark.parametrize(
    ("kind", "strategy"), [SHARING[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in SHARING[1:])]
)
def test_two_processes_have_the_losses_of_one_with_their_common_batch(fitted, kind, strategy):
    one, two = losses(fitted(kind)), losses(fitted(kind, strategy))
    assert set(one) == set(two) == set(range(20))
    steps = range(20)
    expected, found = (torch.tensor([max(run[step]) for step in steps]) for run in (one, two))
    assert expected[0] - expected[-1] > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_blocks_gathered_in_bfloat16_have_the_losses_of_one_process_but_for_its_rounding(home):
    found = []
    for folder, strategy in (("mixed_one", None), ("mixed_two", "sharded")):
        command = fit_command(home, folder, "AR", strategy, "--trainer.precision", "bf16-mixed")
        code, printed = run(command, home)
        assert code == 0, printed
        one = losses(home / folder / "AR")
        found.append(torch.tensor([max(one[step]) for step in range(20)]))
    torch.testing.assert_close(*found, rtol=0.005, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_test_each_image_once_and_find_what_one_finds(home, fitted, kind, strategy):
    """359 images are nine batches of up to 40: not to be halved; masks are those of the images, not of the process."""
    runs = fitted(kind).parent
    command = ["-m", "igpt", "test", "--config", f"{kind}.yaml", "--runs_dir", str(runs), "--ckpt_path", "last"]
    command += [
        "--name",
        kind,
        "--trainer.accelerator",
        "cpu",
        "--data.init_args.batch_size",
        "40",
        "--trainer.devices",
    ]
    for options in (["1"], ["2", *STRATEGIES[strategy]]):
        code, printed = run([sys.executable, *command, *options], home)
        assert code == 0, printed
    one, two = (score["metrics"] for score in json.loads((runs / kind / "scores.json").read_text())[-2:])
    assert one == pytest.approx(two, abs=1e-6)


@pytest.mark.parametrize("strategy", QUICK)
def test_the_validations_of_their_training_count_each_image_once(fitted, strategy):
    """AR hides nothing, so that nothing hangs on the size of the batches: 9 of 16 images for two, 5 of 32 for one."""
    one, two = (losses(fitted("AR", how), "val/loss") for how in (None, strategy))
    assert set(one) == set(two) == {4, 9, 14, 19}
    expected, found = (torch.tensor([max(run[step]) for step in sorted(run)]) for run in (one, two))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", QUICK)
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
    assert {path.name for path in last.glob("*.sha256")} == {"0.sha256", "1.sha256"}
    assert misfits(last) == []
    code, _, err = igpt("probe", "--ckpt", last)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--format checkpoint" in err
    code, _, err = igpt("export", "--ckpt", last, "--format", "checkpoint", "--out", home / "one")
    assert code == 0, err
    whole = fitted("AR", "sharded") / "checkpoints" / "last.ckpt"
    assert load(home / "one" / "model.ckpt").step == 20
    assert torch.equal(logits(home / "one" / "model.ckpt"), logits(whole))


@pytest.mark.slow
def test_what_the_first_of_two_processes_cannot_save_in_parts_is_left_out_and_both_go_on(home):
    at = {5: "part", 10: "meta", 15: "name"}
    code, printed = run(fit_command(home, "hindered", "AR", "parts", *obstacles(at)), home)
    assert code == 0, printed
    lines = [line for line in printed.splitlines() if "could not be written" in line]
    assert [re.search(r"step=(\d+)", line)[1] for line in lines] == ["0000005", "0000010", "0000015"], printed
    assert all(line.endswith("; training goes on") for line in lines)
    assert "Traceback" not in printed
    folder = home / "hindered" / "AR" / "checkpoints"
    assert list(step_checkpoints(folder)) == [20, 15]
    assert [path.name for path in (folder / "step=0000015.ckpt").iterdir()] == ["earlier"]
    assert (folder / "last.ckpt").resolve().name == "step=0000020.ckpt"
    assert (folder / "last.ckpt" / "meta.pt").is_file()
    assert set(losses(home / "hindered" / "AR")) == set(range(20))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["meta", "link"])
def test_at_the_end_of_training_both_processes_end_too(home, what):
    code, printed = run(fit_command(home, f"end_{what}", "AR", "parts", *obstacles({20: what})), home)
    last = home / f"end_{what}" / "AR" / "checkpoints" / "last.ckpt"
    if what == "meta":
        assert (code, last.resolve().name) == (2, "step=0000015.ckpt"), printed
        assert "step=0000015.ckpt is intact" in printed
    else:
        assert code == 0, printed
        assert (last.with_name("step=0000020.ckpt") / "meta.pt").is_file()


@pytest.mark.slow
def test_two_processes_that_the_guard_stops_end_with_76(home):
    options = ["--model.init_args.learning_rate", 1000, "--trainer.callbacks", "igpt.callbacks.LossGuard"]
    code, printed = run(fit_command(home, "lost", "AR", "ddp", *options), home)
    assert code == 76, printed
    assert "the last good checkpoint" in printed
    assert json.loads((home / "lost" / "AR" / "result.json").read_text())["stopped"]
    assert "Traceback" not in printed


@pytest.mark.slow
def test_recompute_and_compile_change_no_loss_of_a_sharded_run(home, fitted):
    options = ["--model.init_args.compile", "true", "--model.init_args.recompute", "true"]
    code, printed = run(fit_command(home, "compiled", "AR", "sharded", *options), home)
    assert code == 0, printed
    one, other = losses(fitted("AR")), losses(home / "compiled" / "AR")
    for step in range(20):
        assert max(other[step]) == pytest.approx(max(one[step]), abs=1e-5)


def last_words(process):
    """What a process that ended too early printed; the other, which waits for it, is ended first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.stdout.read()


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
            command, cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            while next(iter(step_checkpoints(folder)), 0) <= begun:
                assert process.poll() is None, last_words(process)
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
