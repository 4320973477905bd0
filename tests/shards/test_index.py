"""Folders of shards that are not what they should be: one line each, and nothing is read from outside the folder."""

import json
import shutil

import numpy as np
import pytest
import torch

from igpt.errors import UserError
from igpt.palette import Palette
from igpt.shards.index import Index, Shard, as_text, check_shards, digest
from igpt.shards.writing import write_shard

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
            parts.append(write_shard(target, np.arange(count), tokens, RESOLUTION, folder))
        shards[split] = tuple(parts)
    colors = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    shown = np.rint(127.5 * (colors + 1)).astype(np.uint8)
    Index(RESOLUTION, 4, ("a", "b", "c", "d"), colors, shown, shards, (("train 7", "truncated"),), {"seed": 0}).write(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("index") / "shards")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "shards")


def rewritten(folder, change):
    """The index after a change by somebody who also put its checksum right."""
    content = json.loads((folder / "index.json").read_text())
    change(content)
    content["sha256"] = digest(content)
    (folder / "index.json").write_text(as_text(content))


def complaint(folder, every_byte=False):
    with pytest.raises(UserError) as caught:
        check_shards(folder, Index.read(folder), every_byte)
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    return line


def test_an_index_is_read_as_it_was_written(whole):
    index = Index.read(whole)
    check_shards(whole, index, every_byte=True)
    assert index.palette_sha256 == Palette(torch.from_numpy(index.colors)).sha256
    assert [shard.images for shard in index.shards["val"]] == [4, 3]
    assert index.skipped == (("train 7", "truncated"),)
    assert as_text(index.to_dict()) == (whole / "index.json").read_text()


def test_a_shard_is_a_plain_array_that_numpy_opens(whole):
    record = np.load(whole / "train-00001.npy")[0]
    assert record["labels"].tolist() == [0, 1, 2]
    assert record["tokens"].dtype == np.dtype("<u2")
    assert record["tokens"].shape == (3, 1, 9)


def test_no_index_is_an_unfinished_folder(folder):
    (folder / "index.json").unlink()
    assert "has no index.json" in complaint(folder)


def test_an_unknown_format_is_named(folder):
    rewritten(folder, lambda content: content.update(format=7))
    assert "format 7" in complaint(folder)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 1, "sha256": 3}', "\x00\xff", "[" * 100_000]
)
def test_an_index_that_is_none_is_damaged(folder, text):
    (folder / "index.json").write_text(text)
    assert "damaged" in complaint(folder)


def test_any_changed_byte_of_an_index_is_noticed(folder):
    text = (folder / "index.json").read_bytes()
    for place in range(0, len(text), 37):
        (folder / "index.json").write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|format"):
            Index.read(folder)


def first_shard(**values):
    return lambda content: content["shards"]["train"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        first_shard(images=-4),
        first_shard(images="4"),
        first_shard(views=0),
        first_shard(more=1),
        lambda content: content["shards"].pop("val"),
        lambda content: content.update(resolution=0),
        lambda content: content["palette"].update(colors=[]),
        lambda content: content["palette"].update(shown=[[999, 0, 0]] * 5),
        lambda content: content["palette"].update(shown=[[0, 0, 0]] * 4),
        lambda content: content["palette"].update(sha256="0" * 64),
        lambda content: content["images"].update(train=8),
    ],
)
def test_an_index_that_contradicts_itself_is_damaged_even_with_a_right_checksum(folder, change):
    rewritten(folder, change)
    assert "damaged" in complaint(folder)


@pytest.mark.parametrize(
    "name", ["../train-00000.npy", "/etc/passwd", "a/train-00000.npy", "train-00000.npy\n", ".", ""]
)
def test_a_shard_cannot_be_named_outside_of_its_folder(folder, name):
    shutil.copy(folder / "train-00000.npy", folder.parent / "train-00000.npy")
    rewritten(folder, first_shard(file=name))
    assert "no name of a shard" in complaint(folder)


def test_a_link_must_not_leave_the_folder(folder):
    outside = folder.parent / "train-00000.npy"
    (folder / "train-00000.npy").rename(outside)
    (folder / "train-00000.npy").symlink_to(outside)
    assert "leaves the folder" in complaint(folder)


def test_a_folder_may_itself_be_reached_by_a_link(whole, tmp_path):
    (tmp_path / "link").symlink_to(whole)
    check_shards(tmp_path / "link", Index.read(tmp_path / "link"))


def test_a_missing_a_short_and_a_changed_shard_are_named(folder):
    path = folder / "val-00001.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    check_shards(folder, Index.read(folder))  # sizes tell nothing about bytes
    assert "val-00001.npy is damaged" in complaint(folder, every_byte=True)
    path.write_bytes(content[:-2])
    assert "val-00001.npy has" in complaint(folder)
    path.unlink()
    assert "val-00001.npy is missing" in complaint(folder)
    path.mkdir()
    assert "val-00001.npy is missing" in complaint(folder)


def test_the_same_tokens_give_the_same_bytes(tmp_path):
    tokens = np.arange(18, dtype=np.uint16).reshape(2, 1, 9)
    shards = [write_shard(tmp_path / name, np.zeros(2, np.int64), tokens, 3, tmp_path) for name in ("a.npy", "b.npy")]
    assert shards[0] == Shard("a.npy", 2, 1, shards[1].bytes, shards[1].sha256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
