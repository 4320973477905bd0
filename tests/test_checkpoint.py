"""Checkpoint files cannot tear: whole or not there, with a checksum; of a damaged one is said what to use instead."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from igpt.callbacks.step_checkpoint import superseded
from igpt.checkpoints.format import (
    CHECKPOINT_KEY,
    META,
    check_finite,
    checksum_file,
    move_checkpoint,
    newest_intact,
    read_checkpoint,
    remove_checkpoint,
    step_checkpoints,
    write_checkpoint,
)
from igpt.system.errors import UserError
from igpt.system.files import link_last, remove_partial
from igpt.training.saving import WholeCheckpoints
from tests import forked

HEADER = {"model": {"class_path": "igpt.modules.Autoregressive", "init_args": {}}}


def content(value=0.0, size=10):
    return {CHECKPOINT_KEY: HEADER, "state_dict": {"w": torch.full((size,), value)}}


def write_steps(folder, *steps):
    for step in steps:
        write_checkpoint(content(step), folder / f"step={step:07d}.ckpt")
    link_last(folder / f"step={steps[-1]:07d}.ckpt", folder / "last.ckpt")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_has_a_checksum_that_sha256sum_agrees_with(tmp_path):
    write_steps(tmp_path, 5)
    assert names(tmp_path) == ["last.ckpt", "step=0000005.ckpt", "step=0000005.ckpt.sha256"]
    assert torch.equal(read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"], torch.full((10,), 5.0))
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "step=0000005.ckpt.sha256"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_newest_intact_one_offered(tmp_path, damage):
    write_steps(tmp_path, 1, 2, 3, 4)
    for step in (3, 4):
        path = tmp_path / f"step={step:07d}.ckpt"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"one bit": bytes(data), "cut short": bytes(data[:700]), "empty": b""}[damage])
    with pytest.raises(UserError, match=r"last.ckpt is damaged.*intact one is .*/step=0000002.ckpt$") as error:
        read_checkpoint(tmp_path / "last.ckpt")
    assert "\n" not in str(error.value)
    checksum_file(tmp_path / "last.ckpt").unlink()
    if damage != "one bit":
        with pytest.raises(UserError, match=r"last.ckpt cannot be read.*intact one is .*/step=0000002.ckpt$"):
            read_checkpoint(tmp_path / "last.ckpt")


def test_a_second_name_of_a_checkpoint_has_its_checksum(tmp_path, monkeypatch):
    def refuse(*paths, **how):
        raise OSError("no symbolic links here")

    monkeypatch.setattr(os, "symlink", refuse)
    write_steps(tmp_path, 1, 2)
    assert not (tmp_path / "last.ckpt").is_symlink()
    assert checksum_file(tmp_path / "last.ckpt") == tmp_path / "step=0000002.ckpt.sha256"
    with (tmp_path / "step=0000002.ckpt").open("r+b") as file:
        file.truncate(700)
    with pytest.raises(UserError, match=r"last.ckpt is damaged.*intact one is .*/step=0000001.ckpt$"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_where_no_other_is_intact_none_is_offered(tmp_path):
    write_steps(tmp_path, 1)
    (tmp_path / "step=0000001.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match="use an earlier one"):
        read_checkpoint(tmp_path / "last.ckpt")
    assert newest_intact(tmp_path) is None


def test_a_checkpoint_without_a_checksum_is_read_as_it_is(tmp_path):
    torch.save(content(3.0), tmp_path / "old.ckpt")
    assert read_checkpoint(tmp_path / "old.ckpt")["state_dict"]["w"][0] == 3


def test_a_checkpoint_in_another_protocol_of_pickle_is_read_without_a_warning(tmp_path):
    torch.save(content(3.0), tmp_path / "old.ckpt", pickle_protocol=3)
    with pytest.warns(UserWarning, match="pickle protocol 3"):
        torch.load(tmp_path / "old.ckpt", weights_only=True)
    assert read_checkpoint(tmp_path / "old.ckpt")["state_dict"]["w"][0] == 3


def test_a_checkpoint_and_its_checksum_are_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced, renamed, sync, rename = {}, [], os.fsync, os.replace

    def noted(descriptor):
        sync(descriptor)
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    def placed(source, target):
        partial = list(tmp_path.glob(".*.partial"))
        renamed.append((target.name, all(synced.get(path.stat().st_ino) == path.stat().st_size for path in partial)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", placed)
    write_checkpoint(content(), tmp_path / "a.ckpt")
    assert renamed == [("a.ckpt", True), ("a.ckpt.sha256", True)]


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([1, 2], "was not written by igpt"),
        ({"state_dict": {}}, "was not written by igpt"),
        ({CHECKPOINT_KEY: HEADER}, "was not written by igpt"),
        ({"os": os.getcwd}, "was not executed"),
    ],
)
def test_a_file_of_another_program_is_refused(tmp_path, held, words):
    torch.save(held, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=rf"other\.ckpt .*{words}"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"gone\.ckpt does not exist"):
        read_checkpoint(tmp_path / "gone.ckpt")


def test_a_changed_bit_is_noticed_without_a_checksum_beside(tmp_path):
    torch.save(content(3.0, size=1000), tmp_path / "old.ckpt")
    data = bytearray((tmp_path / "old.ckpt").read_bytes())
    data[data.index(torch.full((9,), 3.0).numpy().tobytes()) + 20] ^= 1
    (tmp_path / "old.ckpt").write_bytes(data)
    with pytest.raises(UserError, match=r"old\.ckpt cannot be read: it is damaged"):
        read_checkpoint(tmp_path / "old.ckpt")


def test_the_steps_of_a_folder_are_its_files_and_folders_of_that_name_the_newest_first(tmp_path):
    write_steps(tmp_path, 5, 30, 4, 1_000_000_000)
    (tmp_path / "step=0000007.ckpt").mkdir()
    for name in ("step=8-v1.ckpt", "step=.ckpt", "step=9.pt", "epoch=1.ckpt"):
        (tmp_path / name).touch()
    assert list(step_checkpoints(tmp_path)) == [1_000_000_000, 30, 7, 5, 4]
    assert step_checkpoints(tmp_path)[7] == tmp_path / "step=0000007.ckpt"
    assert newest_intact(tmp_path, lambda step: step < 30) == tmp_path / "step=0000005.ckpt"
    torch.save({CHECKPOINT_KEY: HEADER}, tmp_path / "step=0000007.ckpt" / META)
    assert newest_intact(tmp_path, lambda step: step < 30) == tmp_path / "step=0000007.ckpt"
    with pytest.raises(UserError, match="is sharded; make a file of it: igpt export"):
        read_checkpoint(tmp_path / "step=0000007.ckpt")


def test_a_moved_checkpoint_has_its_checksum_and_replaces_what_stood_there(tmp_path):
    for name, value in (("here", 1.0), ("there", 2.0)):
        (tmp_path / name).mkdir()
        write_checkpoint(content(value), tmp_path / name / "a.ckpt")
    move_checkpoint(tmp_path / "here" / "a.ckpt", tmp_path / "there" / "a.ckpt")
    assert names(tmp_path / "here") == []
    assert names(tmp_path / "there") == ["a.ckpt", "a.ckpt.sha256"]
    assert read_checkpoint(tmp_path / "there" / "a.ckpt")["state_dict"]["w"][0] == 1
    move_checkpoint(tmp_path / "there" / "a.ckpt", tmp_path / "here" / "a.ckpt")  # where nothing stands
    assert names(tmp_path / "here") == ["a.ckpt", "a.ckpt.sha256"]


def test_a_removed_checkpoint_takes_its_checksum_with_it(tmp_path):
    write_checkpoint(content(), tmp_path / "a.ckpt")
    (tmp_path / "parts.ckpt").mkdir()
    (tmp_path / "parts.ckpt" / META).touch()
    for name in ("a.ckpt", "parts.ckpt", "gone.ckpt"):
        remove_checkpoint(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_weights_that_are_not_finite_are_named(dtype, value):
    sound = torch.full((2, 3), 3e38).to(dtype)
    spoilt = sound.clone()
    spoilt[1, 2] = value
    passed_over = [("name", "nan"), ("count", torch.tensor(3)), ("none", torch.empty(0)), ("of", sound.to_sparse())]
    check_finite([*passed_over, ("sound", sound)], "file")
    with pytest.raises(UserError, match=r"^file: .* not finite \(in one\)"):
        check_finite([*passed_over, ("sound", sound), ("one", spoilt), ("two", spoilt)], "file")


def test_of_many_those_of_the_highest_steps_are_kept_and_named_steps_always(tmp_path):
    write_steps(tmp_path, 10, 20, 30, 40, 50)
    os.utime(tmp_path / "step=0000010.ckpt", (2e9, 2e9))  # a clock that was wrong

    def names_of(keep, owns=lambda step: True):
        return [path.name for path in superseded(tmp_path, keep, [20], owns)]

    assert names_of(None) == []
    assert names_of(2) == ["step=0000030.ckpt", "step=0000010.ckpt"]
    link_last(tmp_path / "step=0000030.ckpt", tmp_path / "last.ckpt")
    went_on_from_10_to_30 = names_of(2, lambda step: step in (10, 30))
    assert went_on_from_10_to_30 == ["step=0000050.ckpt", "step=0000040.ckpt"]


def test_what_last_stands_for_is_never_removed(tmp_path):
    write_steps(tmp_path, 10, 20, 30)
    link_last(tmp_path / "step=0000010.ckpt", tmp_path / "last.ckpt")
    assert superseded(tmp_path, 1, [], lambda step: True) == [tmp_path / "step=0000020.ckpt"]


def test_a_run_keeps_as_many_as_asked_with_their_checksums(digits_run, igpt, tmp_path):
    code, _, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--trainer.max_steps", 11,
                        "--checkpoint.every_n_train_steps", 2, "--checkpoint.keep", 2, "--checkpoint.at_steps",
                        "[3,4]", "--samples.num", 0, "--samples.completions", 0)  # fmt: skip
    assert code == 0, err
    steps = [f"step={step:07d}.ckpt" for step in (3, 4, 10, 11)]
    assert names(tmp_path / "mini" / "checkpoints") == sorted(["last.ckpt", *steps, *(f"{s}.sha256" for s in steps)])
    assert (tmp_path / "mini" / "checkpoints" / "last.ckpt").resolve().name == steps[-1]


def test_keeping_none_is_refused(digits_run, igpt, tmp_path):
    code, _, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--checkpoint.keep", 0)
    assert (code, "checkpoint.keep 0" in err) == (2, True)


def test_what_a_killed_writer_left_is_removed_and_that_of_a_living_one_stays(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        pass
    kept = [f".step=0000001.{os.getpid()}.partial.ckpt", ".notes.partial", "a.partial"]
    older = f".step=0000001.ckpt.{ended.pid}.partial"  # as igpt 0.1 named them
    for name in [f".step=0000001.{ended.pid}.partial.ckpt", f".last.{ended.pid}.partial.ckpt", older, *kept]:
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(digits_run, igpt, tmp_path):
    arguments = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--samples.num", 0,
                 "--samples.completions", 0, "--trainer.limit_val_batches", 0, "--trainer.max_steps"]  # fmt: skip
    code, _, err = igpt(*arguments, 5)
    assert code == 0, err
    folder = tmp_path / "mini" / "checkpoints"
    before = names(folder)
    words = [*arguments, 30, "--ckpt_path", "last", "--checkpoint.every_n_train_steps", 10]
    process = forked.igpt(*words, largest=100_000)
    _, err = process.communicate()
    assert process.returncode == 2, err
    lines = [line for line in err.splitlines() if line.startswith("igpt") and "goes on with" not in line]
    assert len(lines) == 4, err  # steps 10 and 20, where it goes on, and the end, where it cannot
    for line, step in zip(lines, (10, 20, 30, 30), strict=True):
        assert f"step=00000{step}.ckpt" in line
    assert "File too large" in lines[0]
    assert "step=0000005.ckpt is intact" in lines[-1]
    assert names(folder) == before
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 5


def test_a_checkpoint_whose_checksum_cannot_be_written_is_not_written_either(tmp_path, capsys):
    path = tmp_path / ("c" * (255 - len(f"..{os.getpid()}.partial")))  # the longest name; its checksum's is longer
    torch.save(content(1.0), path)
    before = path.read_bytes()
    WholeCheckpoints().save_checkpoint(content(2.0), path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "could not be written" in lines[0]
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def write_for_ever(folder, first):
    """Checkpoints of 12 MB one after the other, from a step on; the two newest stay."""
    remove_partial(folder)
    for step in range(first, first + 10_000):
        target = folder / f"step={step:07d}.ckpt"
        weights = {"w": torch.full((3_000_000,), float(step))}
        write_checkpoint({CHECKPOINT_KEY: HEADER, "state_dict": weights}, target)
        link_last(target, folder / "last.ckpt")
        (folder / f"step={step - 2:07d}.ckpt").unlink(missing_ok=True)


def test_a_writer_killed_while_it_writes_leaves_a_last_that_can_be_read(tmp_path):
    """The kill comes at moments of one write, from the first byte of the checkpoint to the renaming of its checksum."""
    rng = random.Random(1)
    for kill in range(4):
        first = 100 * kill + 1
        with forked.Forked(write_for_ever, tmp_path, first) as process:
            while not (tmp_path / f"step={first + 1:07d}.ckpt").exists():
                assert process.poll() is None
                time.sleep(0.002)
            while not list(tmp_path.glob(".step=*.partial.ckpt")):
                time.sleep(0.0002)
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
        weights = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"]
        assert bool((weights == weights[0]).all())
        assert weights[0] >= first


@pytest.mark.slow
def test_twenty_kills_of_a_run_while_it_writes_leave_twenty_times_a_last_to_go_on_from(digits_run, igpt, tmp_path):
    folder, rng = tmp_path / "mini" / "checkpoints", random.Random(time.time_ns())
    command = [sys.executable, "-m", "igpt", "fit", "--config", digits_run.config, "--runs_dir", tmp_path,
               "--ckpt_path", "last", "--trainer.max_steps", 100_000, "--checkpoint.every_n_train_steps", 1,
               "--checkpoint.keep", 3, "--trainer.limit_val_batches", 0]  # fmt: skip
    code, _, err = igpt(*command[3:], "--trainer.max_steps", 2)
    assert code == 0, err
    caught, step = 0, 2
    for kill in range(20):
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not list(folder.glob(f".step=*.{process.pid}.partial.ckpt")):
                assert process.poll() is None
                time.sleep(0.0005)
            time.sleep(rng.choice([0, rng.uniform(0, 0.01), rng.uniform(0, 0.5)]))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        left = [path.name for path in folder.glob(".*.partial.ckpt")]
        caught += bool(left)
        before, step = step, read_checkpoint(folder / "last.ckpt")["global_step"]
        print(f"kill {kill}: at step {step}, left {left}")
        assert step >= before
    assert caught >= 5
