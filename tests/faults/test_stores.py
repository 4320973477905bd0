"""Feature stores that are none, or whose makers could compute a checksum: it proves no good will."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from igpt.cli import main
from igpt.probing.store import as_text, digest
from tests.faults.conftest import Payload


@pytest.fixture(scope="module")
def made(digits_run, tmp_path_factory):
    """A store that fits, of layer 1."""
    folder = tmp_path_factory.mktemp("store")
    words = ["--method", "knn", "--layers", "1", "--out", folder / "made", "--store", folder / "mine"]
    assert main(["probe", "--ckpt", *map(str, [digits_run.checkpoint, "--accelerator", "cpu", *words])]) == 0
    return folder / "mine"


@pytest.fixture
def store(made, tmp_path):
    """A copy of the store, to be broken."""
    return shutil.copytree(made, tmp_path / "mine")


@pytest.fixture
def refused_store(refused, digits_run):
    def check(words=("--store mine",)):
        options = ["--layers", 1, "--method", "knn", "--accelerator", "cpu"]
        refused("probe", "--ckpt", digits_run.checkpoint, "--out", "p", "--store", "mine", *options, words=words)

    return check


def resealed(store, change):
    """The manifest with a part changed, and a checksum that is right again."""
    manifest = json.loads((store / "manifest.json").read_bytes())
    manifest = change(manifest) or manifest
    if isinstance(manifest, dict):
        manifest["sha256"] = digest(manifest)
    (store / "manifest.json").write_bytes(as_text(manifest))


FIELDS = ("format", "identity", "layers", "width", "dtype", "images", "files")
WRONG = [None, [], {}, "word", 3, -1, 1.5, True, [None], {"train": -5}, {"../../secret": 3}, [10**30]]


@pytest.mark.parametrize("field", FIELDS)
def test_a_manifest_with_a_field_off_and_its_checksum_right(store, refused_store, field):
    whole = (store / "manifest.json").read_bytes()
    before = json.loads(whole)[field]
    for wrong in WRONG:
        if wrong == before:
            continue
        resealed(store, lambda manifest, wrong=wrong: manifest.update({field: wrong}))
        refused_store()
        (store / "manifest.json").write_bytes(whole)
    resealed(store, lambda manifest: manifest.pop(field) and None)
    refused_store()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"sha256": 1}',
        b"\xff\xfe{}",
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        pickle.dumps({}),
    ],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_a_manifest_that_is_none(store, refused_store, content):
    (store / "manifest.json").write_bytes(content)
    refused_store(["--store mine", "manifest.json is damaged"])


def put_file(store, name, content):
    """Replace a file, and have the manifest agree with it."""
    import hashlib

    (store / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    resealed(store, lambda manifest: manifest["files"].update({name: entry}))


def saved(array):
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["train_features.npy", "val_labels.npy"])
@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"features",
        "objects": saved(np.array([{}], dtype=object)),
        "words": saved(np.array(["a"])),
        "another shape": saved(np.zeros((1, 2, 3), np.float16)),
        "one number": saved(np.float32(3)),
        "a shape beyond all memory": b"\x93NUMPY\x01\0F\0"
        + b"{'descr': '<f2', 'fortran_order': False, 'shape': (1, 99999999999, 32)}\n"[:70].ljust(70),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_file_of_another_kind_and_its_checksum_right(store, refused_store, name, content):
    put_file(store, name, content[1])
    refused_store(["--store mine", name])


@pytest.mark.parametrize("name", ["train_features.npy", "train_labels.npy"])
def test_code_in_a_store_is_never_executed(store, refused_store, mark, name):
    put_file(store, name, saved(np.array([Payload(mark)], dtype=object)))
    refused_store(["--store mine", name])
    put_file(store, name, pickle.dumps(Payload(mark)))
    refused_store(["--store mine", name])


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_a_file_that_is_no_file(store, refused_store, kind):
    path = store / "train_features.npy"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)
    refused_store(["--store mine", "train_features.npy is missing"])
