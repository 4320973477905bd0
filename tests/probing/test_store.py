"""The feature store: what is written is read back, and nothing that was changed is accepted."""

import random
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from igpt.probing.store import FeatureStore, StoreWriter
from igpt.system.errors import UserError

LAYERS = [0, 2, 5]
IMAGES = {"train": 13, "val": 4, "test": 6}
WIDTH = 8
IDENTITY = {"checkpoint_sha256": "00", "data": {"init_args": {"seed": 0, "root": "bilder/größe"}}, "grid": 1}


def content(seed=0):
    """Features (L, N, D) and labels of each split."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(len(LAYERS), count, WIDTH, generator=rng), torch.randint(10, (count,), generator=rng))
        for name, count in IMAGES.items()
    }


def write(folder, dtype="float32", batch=5, splits=None):
    with StoreWriter(folder, IDENTITY, LAYERS, IMAGES, dtype) as writer:
        for name, (features, labels) in (splits or content()).items():
            for start in range(0, len(labels), batch):
                writer.add(name, features[:, start : start + batch], labels[start : start + batch])
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder, *words, identity=IDENTITY, layers=LAYERS):
    with pytest.raises(UserError) as caught:
        FeatureStore.open(folder, identity, layers)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"--store {folder}")
    for word in words:
        assert word in message, message


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "store")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read_back_rounded_to_the_type_on_disk(tmp_path, dtype):
    store = FeatureStore.open(write(tmp_path / "store", dtype), IDENTITY, LAYERS)
    assert (store.layers, store.width, store.dtype, store.images) == (LAYERS, WIDTH, dtype, IMAGES)
    for name, (features, labels) in content().items():
        assert torch.equal(store.labels(name), labels)
        expected = features.numpy().astype(dtype).astype(np.float32)
        assert store.features(name, LAYERS).dtype == torch.float32
        np.testing.assert_array_equal(store.features(name, LAYERS), expected)
        np.testing.assert_array_equal(store.features(name, [5, 0]), expected[[2, 0]])
        np.testing.assert_array_equal(store.splits([2])[name][0], expected[[1]])


def test_float16_is_within_its_rounding_and_half_as_large(tmp_path):
    half, full = write(tmp_path / "half", "float16"), write(tmp_path / "full", "float32")
    features = content()["train"][0]
    read = FeatureStore.open(half, IDENTITY, LAYERS).features("train", LAYERS)
    assert ((read - features).abs() <= features.abs() * 2**-11 + 2**-25).all()
    sizes = [(folder / "train_features.npy").stat().st_size for folder in (half, full)]
    assert sizes[1] - sizes[0] == 3 * 13 * 8 * 2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numpy_opens_the_files_as_they_are(tmp_path, dtype):
    folder = write(tmp_path / "store", dtype)
    assert sorted(files(folder)) == sorted(
        ["manifest.json", *(f"{name}_{kind}.npy" for name in IMAGES for kind in ("features", "labels"))]
    )
    for name, (features, labels) in content().items():
        loaded = np.load(folder / f"{name}_features.npy")
        assert loaded.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(loaded, features.numpy().astype(dtype))
        np.testing.assert_array_equal(np.load(folder / f"{name}_labels.npy"), labels)


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_batches_of_any_size_give_the_same_bytes(store, tmp_path, batch):
    assert files(write(tmp_path / "other", batch=batch)) == files(store)


def test_splits_may_be_written_in_turns(store, tmp_path):
    with StoreWriter(tmp_path / "other", IDENTITY, LAYERS, IMAGES, "float32") as writer:
        for start in range(0, 13, 2):
            for name, (features, labels) in content().items():
                if start < len(labels):
                    writer.add(name, features[:, start : start + 2], labels[start : start + 2])
    assert files(tmp_path / "other") == files(store)


@pytest.mark.parametrize("how", ["flip", "bit", "space"])
def test_no_single_changed_byte_of_the_manifest_is_accepted(store, how):
    path = store / "manifest.json"
    whole = path.read_bytes()
    FeatureStore.open(store, IDENTITY, LAYERS)
    rng = random.Random(0)  # of which bit, and of nothing else: every byte is changed in turn
    for position in range(len(whole)):
        other = {"flip": whole[position] ^ 0xFF, "bit": whole[position] ^ 1 << rng.randrange(8), "space": ord(" ")}[how]
        if other == whole[position]:
            continue
        path.write_bytes(whole[:position] + bytes([other]) + whole[position + 1 :])
        refused(store, "manifest.json is damaged")
    path.write_bytes(whole)
    FeatureStore.open(store, IDENTITY, LAYERS)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"3", b'"sha256"', b"\xff\xfe", b"[" * 10**5])
def test_a_manifest_that_is_none_is_damaged(store, text):
    (store / "manifest.json").write_bytes(text)
    refused(store, "manifest.json is damaged")


def test_a_manifest_that_was_cut_or_is_followed_by_something_is_damaged(store):
    path = store / "manifest.json"
    whole = path.read_bytes()
    for text in (whole[: len(whole) // 2], whole[:-1], whole + b"\n", whole + whole):
        path.write_bytes(text)
        refused(store, "manifest.json is damaged")


def test_a_missing_manifest_or_folder_is_named(store):
    (store / "manifest.json").unlink()
    refused(store, "manifest.json", "no feature store")
    shutil.rmtree(store)
    refused(store, "no feature store")


NAMES = [f"{split}_{kind}.npy" for split in IMAGES for kind in ("features", "labels")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: whole[:-1], "bytes long instead of"),
        (lambda whole: whole + b"\0", "bytes long instead of"),
        (lambda whole: b"", "0 bytes long instead of"),
        (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "changed"),
        (lambda whole: whole[:20] + bytes([whole[20] ^ 4]) + whole[21:], "changed"),
        (None, "missing"),
    ],
    ids=["shorter", "longer", "empty", "last bit", "header", "missing"],
)
def test_a_file_that_is_not_as_it_was_written_is_named(store, name, change, words):
    path = store / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    refused(store, name, words)


def test_any_changed_byte_of_the_features_is_found(store):
    path, rng = store / "val_features.npy", random.Random(0)
    whole = path.read_bytes()
    for position in rng.sample(range(len(whole)), 100):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << rng.randrange(8))]) + whole[position + 1 :])
        refused(store, "val_features.npy", "changed")


def test_features_of_something_else_are_refused_with_what_differs(store):
    refused(store, "something else", "checkpoint_sha256", identity={**IDENTITY, "checkpoint_sha256": "01"})
    refused(store, "something else", "data, grid", identity={"checkpoint_sha256": "00", "data": {}, "grid": 2})
    refused(store, "something else", "masks", identity={**IDENTITY, "masks": 3})
    refused(store, "lacks layers 1,3", layers=[1, 2, 3])


def test_layers_that_fit_into_memory_are_taken_together(store):
    opened = FeatureStore.open(store, IDENTITY, [0])
    layer = 13 * 8 * 4  # bytes of the largest split
    assert list(opened.in_turn(LAYERS)) == [LAYERS]
    assert list(opened.in_turn(LAYERS, 2 * layer)) == [[0, 2], [5]]
    assert list(opened.in_turn(LAYERS, 2 * layer - 1)) == [[0], [2], [5]]
    assert list(opened.in_turn(LAYERS, 1)) == [[0], [2], [5]]


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("before", [None, "older store"])
def test_a_crash_in_the_middle_leaves_what_was_there_before(tmp_path, before):
    folder = tmp_path / "store"
    old = files(write(folder, "float16", splits=content(1))) if before else None

    def cut():
        with StoreWriter(folder, IDENTITY, LAYERS, IMAGES, "float32") as writer:
            writer.add("train", *content()["train"])
            assert not folder.exists() or files(folder) == old
            raise PowerCutError

    with pytest.raises(PowerCutError):
        cut()
    assert [path.name for path in tmp_path.iterdir()] == (["store"] if before else [])
    if before:
        assert files(folder) == old
        write(folder)
        assert [path.name for path in tmp_path.iterdir()] == ["store"]
        assert files(folder) == files(write(tmp_path / "other"))


def test_what_dead_processes_left_behind_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [tmp_path / f".a[1] b.{dead.pid}.{kind}" for kind in ("partial", "old")]
    lives, other = tmp_path / ".a[1] b.1.partial", tmp_path / f".ab.{dead.pid}.partial"
    for folder in (*left, lives, other):
        folder.mkdir()
        (folder / "train_features.npy").write_bytes(b"half")
    write(tmp_path / "a[1] b")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a[1] b", lives.name, other.name])


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_images_than_announced_is_refused(tmp_path, change):
    splits = content()
    features, labels = splits["val"]
    count = [0, 1, 2, 3, 0][: 4 + change]
    with pytest.raises(UserError, match=f"--data: the val split gave {4 + change} images instead of 4"):
        write(tmp_path / "store", splits={**splits, "val": (features[:, count], labels[count])})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "value"), [("float16", 7e4), ("float32", torch.inf), ("float16", torch.nan)])
def test_a_number_that_the_type_cannot_hold_is_one_line_and_no_store(tmp_path, dtype, value):
    splits = content()
    splits["test"][0][2, 3, 4] = value
    with pytest.raises(UserError, match=f"--dtype {dtype}"):
        write(tmp_path / "store", dtype, splits=splits)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(size):
    """Stand-in for a full disk: files of this process cannot grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("batch", [1, 5, 100])
@pytest.mark.parametrize("bytes_left", [10, 130, 600, 1000, 1375])  # header, first rows, ... last byte
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, bytes_left, batch):
    with largest_file(bytes_left), pytest.raises(UserError) as caught:
        write(tmp_path / "store", batch=batch)
    assert str(caught.value) == f"--store {tmp_path / 'store'}: File too large; choose another folder"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "store", tmp_path / "file"):
        with pytest.raises(UserError, match=f"{folder}: "):
            write(folder)
    assert files(tmp_path) == {"file": b"in the way"}
