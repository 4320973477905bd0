"""The table of contents of a folder of shards; broken ones are in tests/faults/test_shards.py."""

import os
import shutil

import numpy as np
import pytest
import torch

from igpt.data.shards.index import Index, Shard, as_text, check_shards
from igpt.data.shards.kinds import ColorTokens
from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from igpt.tokenization.writing import write_shard

RESOLUTION = 3


def made(folder):
    """Two shards a split of random tokens of five colours, and their index."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shards = {}
    for split in ("train", "val", "test"):
        parts = []
        for number, count in enumerate((4, 3)):
            tokens = rng.integers(5, size=(count, 1, RESOLUTION**2)).astype(np.uint16)
            target = folder / f"{split}-{number:05d}.npy"
            parts.append(write_shard(target, np.arange(count), tokens, folder))
        shards[split] = tuple(parts)
    colors = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    shown = np.rint(127.5 * (colors + 1)).astype(np.uint8)
    names, kind = ("a", "b", "c", "d"), ColorTokens(colors, shown)
    Index(RESOLUTION, 4, names, kind, shards, (("train 7", "truncated"),), {"seed": 0}).write(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("index") / "shards")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "shards")


def test_an_index_is_read_as_it_was_written(whole):
    index = Index.read(whole)
    check_shards(whole, index, every_byte=True)
    assert index.tokens.sha256 == Palette(torch.from_numpy(index.tokens.colors)).sha256
    assert [shard.images for shard in index.shards["val"]] == [4, 3]
    assert index.skipped == (("train 7", "truncated"),)
    assert as_text(index.to_dict()) == (whole / "index.json").read_text()


def test_a_shard_is_a_plain_array_that_numpy_opens(whole):
    record = np.load(whole / "train-00001.npy")[0]
    assert record["labels"].tolist() == [0, 1, 2]
    assert record["tokens"].dtype == np.dtype("<u2")
    assert record["tokens"].shape == (3, 1, 9)


def test_any_changed_byte_of_an_index_is_noticed(folder):
    text = (folder / "index.json").read_bytes()
    for place in range(0, len(text), 37):
        (folder / "index.json").write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|format"):
            Index.read(folder)


def test_a_folder_may_itself_be_reached_by_a_link(whole, tmp_path):
    (tmp_path / "link").symlink_to(whole)
    check_shards(tmp_path / "link", Index.read(tmp_path / "link"))


def test_the_same_tokens_give_the_same_bytes(tmp_path):
    tokens = np.arange(18, dtype=np.uint16).reshape(2, 1, 9)
    shards = [write_shard(tmp_path / name, np.zeros(2, np.int64), tokens, tmp_path) for name in ("a.npy", "b.npy")]
    assert shards[0] == Shard("a.npy", 2, 1, shards[1].bytes, shards[1].sha256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_shards_and_their_index_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """A power cut may otherwise leave a file of the right size that holds zeros."""
    synced, renamed, sync, rename = {}, {}, os.fsync, os.replace

    def noted(descriptor):
        sync(descriptor)
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    def placed(source, target):
        found = os.stat(source)
        renamed[os.path.basename(target)] = synced.get(found.st_ino) == found.st_size
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", placed)
    folder = made(tmp_path / "shards")
    assert renamed == dict.fromkeys(os.listdir(folder), True)
    assert len(renamed) == 7


def test_writing_a_shard_gives_it_the_usual_mode_and_leaves_the_mask_of_the_process_alone(tmp_path, monkeypatch):
    """The mask belongs to all threads: one that changes it for a moment changes the files of the others."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)
            write_shard(tmp_path / "a.npy", np.zeros(1, np.int64), np.zeros((1, 1, 9), np.uint16), tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "a.npy").stat().st_mode & 0o777 == 0o640


def test_a_shard_that_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path):
    target = tmp_path / "train-00000.npy"
    target.mkdir()
    (beside := tmp_path / "beside").mkdir()
    with pytest.raises(UserError, match=r"^cannot write .*train-00000\.npy"):
        write_shard(target, np.zeros(1, np.int64), np.zeros((1, 1, 4), np.uint16), beside)
    assert list(beside.iterdir()) == []


def test_a_shard_takes_eight_bytes_a_label_and_two_a_token_beside_a_short_header(tmp_path):
    tokens = np.zeros((100, 2, 9), np.uint16)
    shard = write_shard(tmp_path / "a.npy", np.zeros(100, np.int64), tokens, tmp_path)
    assert shard.bytes == (tmp_path / "a.npy").stat().st_size
    assert 0 < shard.bytes - 100 * (8 + 2 * 9 * 2) <= 256
