"""Sharded checkpoints: read as data, whole or not at all."""

import hashlib
import os
import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint import save

from igpt.checkpoints.format import CHECKPOINT_KEY, META, misfits, newest_intact, read_checkpoint, write_sums
from igpt.checkpoints.sharded import read_sharded
from igpt.runs.resuming import use_checkpoint
from igpt.system.errors import UserError
from igpt.system.files import remove_partial, take_place

STATE = {"transformer.wte": torch.arange(12.0).view(3, 4), "palette.colors": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path):
    """What a strategy writes, by one process."""
    folder = tmp_path / "step=0000005.ckpt"
    optimizer = {"state": {"wte": {"exp_avg": torch.ones(3, 4)}}, "param_groups": [{"lr": 0.1}]}
    with pytest.warns(UserWarning, match="single process"):
        save({"state_dict": STATE, "optimizer_0": optimizer}, checkpoint_id=folder, no_dist=True)
    header = {"format": 1, "model": {"class_path": "igpt.modules.Autoregressive", "init_args": {}}}
    torch.save({CHECKPOINT_KEY: header, "global_step": 5}, folder / META)
    return folder


def test_shards_are_put_together_under_their_names_and_types(folder):
    content = read_sharded(folder)
    assert content["global_step"] == 5
    assert content["state_dict"].keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(content["state_dict"][name], tensor)
        assert content["state_dict"][name].dtype == tensor.dtype


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("file", [".metadata", META])
def test_code_in_a_sharded_checkpoint_is_refused_and_not_executed(folder, tmp_path, file):
    (folder / file).write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(UserError):
        read_sharded(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", [".metadata", META, "__0_0.distcp"])
def test_a_folder_without_one_of_its_files_is_refused(folder, file):
    (folder / file).unlink()
    with pytest.raises(UserError, match=r"step=0000005.ckpt.*use an earlier one"):
        read_sharded(folder)


def test_each_process_writes_the_checksums_of_its_own_files_as_sha256sum_reads_them(folder):
    (folder / "__1_0.distcp").write_bytes(b"of the second process")
    for process in (0, 1):
        write_sums(folder, process)
    of_first = (folder / "0.sha256").read_text().splitlines()
    assert [line.split("  ")[1] for line in of_first] == [".metadata", "__0_0.distcp", META]
    found = hashlib.sha256(b"of the second process").hexdigest()
    assert (folder / "1.sha256").read_text() == f"{found}  __1_0.distcp\n"


@pytest.mark.parametrize("file", [".metadata", META, "__0_0.distcp"])
@pytest.mark.parametrize("way", ["changed", "lost"])
def test_a_folder_with_a_file_of_another_checksum_is_named_and_no_beginning(folder, file, way):
    write_sums(folder, 0)
    assert newest_intact(folder.parent) == folder
    if way == "lost":
        (folder / file).unlink()
    else:
        bytes_ = bytearray((folder / file).read_bytes())
        bytes_[len(bytes_) // 2] ^= 1
        (folder / file).write_bytes(bytes_)
    assert newest_intact(folder.parent) is None
    with pytest.raises(UserError, match=rf"step=0000005.ckpt is damaged: {file} changed or lost; use an earlier one"):
        read_sharded(folder)
    if file == "__0_0.distcp":
        with pytest.raises(UserError, match="is damaged"):
            use_checkpoint(None, str(folder))


@pytest.mark.parametrize("content", [b"", b"one word\n", b"\xff\xfe\n", b"0" * 64 + b"  ../" + b"a\n"])
def test_a_damaged_list_of_checksums_is_named_where_it_says_nothing_of_a_file(folder, content):
    (folder / "0.sha256").write_bytes(content)
    assert misfits(folder) == (["0.sha256"] if content else [])


def test_where_a_file_is_needed_a_folder_is_refused_with_what_to_do(folder):
    with pytest.raises(UserError, match=f"sharded; make a file of it: igpt export --ckpt {folder} --format checkpoint"):
        read_checkpoint(folder)


def test_an_unfinished_folder_is_never_the_newest(folder):
    assert newest_intact(folder.parent) == folder
    (folder.parent / "step=0000009.ckpt").mkdir()
    assert newest_intact(folder.parent) == folder


def test_a_folder_takes_the_place_of_one_of_its_name_and_leaves_nothing(folder):
    written = folder.parent / f".{folder.stem}.{os.getpid()}.partial.ckpt"
    written.mkdir()
    (written / "new").touch()
    take_place(written, folder, durable=True)
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_folders_of_killed_writers_are_removed(tmp_path):
    left = tmp_path / ".step=0000005.999999999.partial.ckpt"
    left.mkdir()
    (left / "__0_0.distcp").touch()
    remove_partial(tmp_path)
    assert not left.exists()


def test_a_network_that_diverged_is_no_beginning_if_sharded_either(folder):
    meta = (folder / META).read_bytes()
    shutil.rmtree(folder)
    diverged = {"state_dict": STATE | {"transformer.wpe": torch.tensor([1.0, torch.nan])}}
    with pytest.warns(UserWarning, match="single process"):
        save(diverged, checkpoint_id=folder, no_dist=True)
    (folder / META).write_bytes(meta)
    with pytest.raises(UserError, match=r"--ckpt_path .*step=0000005.ckpt.* not finite \(in transformer.wpe\)"):
        use_checkpoint(None, str(folder))
