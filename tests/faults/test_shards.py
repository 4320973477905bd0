"""Folders of token shards that are broken, lie, or lead elsewhere; and `igpt tokenize` with words that are off."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from igpt.data.shards.index import as_text, digest
from tests.conftest import REPO
from tests.faults.conftest import Payload
from tests.shards.test_index import made

NOT_HERE = "/proc/nowhere"  # where not even root can make a folder
HUGE = 10**30


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("shards") / "shards")


@pytest.fixture
def folder(whole, tmp_path):
    """Two good shards of each split, to be broken."""
    return shutil.copytree(whole, tmp_path / "shards")


@pytest.fixture
def refuse(refused):
    """`igpt palette` of the shards is refused, with these words."""

    def check(*words, folder="shards", verify="false"):
        data = ["--data", "TokenShards", "--data.folder", folder, "--data.verify", verify]
        refused("palette", *data, "--colors", 2, "--out", "p.npy", words=words)

    return check


def test_shards_that_are_whole_are_read(igpt, folder, tmp_path):
    data = ["--data", "TokenShards", "--data.folder", folder, "--data.verify", "true"]
    code, _, err = igpt("palette", *data, "--colors", 2, "--out", tmp_path / "p.npy")
    assert (code, err) == (0, "")


INDEX = {  # what stands in index.json
    "empty": b"",
    "text": b"shards",
    "HTML": b"<html>404 not found</html>",
    "binary": bytes(range(256)),
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "nothing": b"{}",
    "cut short": b'{"format": 1, "resolution": ',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "nested deeply": b"[" * 100_000,
    "a number too long": b'{"format": ' + b"9" * 5_000 + b"}",
    "a pickle": pickle.dumps({"format": 1}),
    "a checksum that is a number": b'{"format": 1, "sha256": 3}',
    "shards of another program": b'{"version": 2, "shards": [{"column_names": ["x"], "raw_data": {"bytes": 3}}]}',
    "parts of another program's weights": b'{"metadata": {"total_size": 8}, "weight_map": {"a": "x.safetensors"}}',
}


@pytest.mark.parametrize("name", INDEX)
def test_an_index_that_is_none(refuse, folder, name):
    (folder / "index.json").write_bytes(INDEX[name])
    refuse("shards/index.json is damaged", "igpt tokenize")


@pytest.mark.parametrize("format", [0, 7, "parquet", None, [1]])
def test_an_index_of_another_format(refuse, folder, format):
    changed(folder, lambda content: content.update(format=format))
    refuse("shards/index.json", f"format {format!r}")


def test_an_index_with_a_number_changed(refuse, folder):
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace('"resolution": 3', '"resolution": 4'))
    refuse("shards/index.json is damaged")


def changed(folder, change):
    """The index after a change by somebody who also put its checksum right."""
    content = json.loads((folder / "index.json").read_text())
    change(content)
    content["sha256"] = digest(content)
    (folder / "index.json").write_text(as_text(content))


def shard(**values):
    return lambda content: content["shards"]["train"][0].update(values)


def counted(more):
    """The first shard with more images, in the sum of the split as well."""

    def change(content):
        content["shards"]["train"][0]["images"] += more
        content["images"]["train"] += more

    return change


def top(**values):
    return lambda content: content.update(values)


def palette(**values):
    return lambda content: content["palette"].update(values)


LIES = {
    "images below zero": shard(images=-4),
    "images in words": shard(images="4"),
    "half an image": shard(images=4.5),
    "images that are true": shard(images=True),
    "no views": shard(views=0),
    "views below zero": shard(views=-1),
    "two views of one": shard(views=2),
    "views beyond all numbers": shard(views=HUGE),
    "bytes below zero": shard(bytes=-1),
    "bytes beyond all numbers": shard(bytes=HUGE),
    "an image more": counted(1),
    "an image fewer": counted(-1),
    "images beyond all memory": counted(2**40),
    "a sum that is not one": lambda content: content["images"].update(train=8),
    "an entry more": shard(more=1),
    "an entry fewer": lambda content: content["shards"]["train"][0].pop("views"),
    "an entry that is a list": lambda content: content["shards"]["train"].append([1, 2]),
    "a split fewer": lambda content: content["shards"].pop("val"),
    "shards in words": lambda content: content["shards"].update(train="train-00000.npy"),
    "another resolution": top(resolution=4),
    "classes below zero": top(num_classes=-1),
    "names of classes in a word": top(class_names="abcd"),
    "what was skipped in a word": top(skipped="all"),
    "no colours": palette(colors=[]),
    "colours of another palette": palette(colors=[[0.0, 0.0, 0.0]] * 5),
    "the name of another palette": palette(sha256="0" * 64),
    "colours in words": palette(colors=[["a", "b", "c"]] * 5),
    "colours of four channels": palette(colors=[[0.0] * 4] * 5),
    "colours that are NaN": palette(colors=[[float("nan")] * 3] * 5),
    "colours beyond 32 bits": palette(colors=[[1e300] * 3] * 5),
    "colours beyond 8 bits": palette(shown=[[999, 0, 0]] * 5),
    "a colour too few": palette(shown=[[0, 0, 0]] * 4),
}


@pytest.mark.parametrize("name", LIES)
def test_an_index_that_lies_with_its_checksum_right(refuse, folder, name):
    changed(folder, LIES[name])
    refuse("shards/", "run 'igpt tokenize' again")  # where the index alone does not show it, the shard does


@pytest.mark.parametrize(
    "name", ["../train-00000.npy", "/etc/passwd", "a/train-00000.npy", "train-00000.npy\n", ".", ""]
)
def test_a_shard_named_outside_of_its_folder(refuse, folder, name):
    shutil.copy(folder / "train-00000.npy", folder.parent)
    changed(folder, shard(file=name))
    refuse("shards/index.json", "no name of a shard")


NO_FILE = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("gone"),
}
LINKS_OUT = {"a link out": "../outside.npy", "a device": "/dev/zero"}


@pytest.mark.parametrize("kind", NO_FILE)
def test_an_index_that_is_no_file(refuse, folder, kind):
    (folder / "index.json").unlink()
    NO_FILE[kind](folder / "index.json")
    refuse("shards has no index.json")


@pytest.mark.parametrize(
    "place", ["gone", "file", "file/below", "n" * 300, "", "/dev/null", "https://example.org/shards"]
)
def test_a_folder_that_is_none(refuse, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    refuse("has no index.json", folder=place)


@pytest.mark.parametrize("kind", NO_FILE)
def test_a_shard_that_is_no_file(refuse, folder, kind):
    (folder / "val-00001.npy").unlink()
    NO_FILE[kind](folder / "val-00001.npy")
    refuse("shards/val-00001.npy is missing")


@pytest.mark.parametrize("kind", LINKS_OUT)
def test_a_shard_that_is_a_link_out_of_the_folder(refuse, folder, kind):
    (folder / "val-00001.npy").rename(folder.parent / "outside.npy")
    (folder / "val-00001.npy").symlink_to(LINKS_OUT[kind])
    refuse("shards/val-00001.npy is a link that leaves the folder")


def test_a_shard_of_another_size_or_with_a_changed_byte(refuse, folder):
    path = folder / "test-00000.npy"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"\0", whole * 2):
        path.write_bytes(content)
        refuse("shards/test-00000.npy has", f"instead of {len(whole)}")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refuse("shards/test-00000.npy is damaged", verify="true")


def rewritten(path, field, value):
    """The shard with a value put into every place of a field, in a file of the same size."""
    record = np.load(path)
    record[field][0, 0] = value
    np.save(path, record)


CONTENTS = {  # the beginning of a shard that keeps its size
    "zeros": bytes(40),
    "a ZIP": b"PK\x03\x04",
    "a signature alone": b"\x93NUMPY" + bytes(40),
    "a header that is no literal": b"\x93NUMPY\x01\0\x40\0" + b"__import__('os').mkdir('executed')".ljust(64),
    "a header nested deeply": b"\x93NUMPY\x01\0\x70\0" + b"(" * 112,
    "another type": b"\x93NUMPY\x01\0\x46\0" + b"{'descr': '<f2', 'fortran_order': False, 'shape': (3,)}".ljust(70),
    "objects": b"\x93NUMPY\x01\0\x46\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(70),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_shard_of_the_right_size_that_holds_something_else(refuse, folder, name):
    for number in (0, 1):
        path = folder / f"train-0000{number}.npy"
        content = path.read_bytes()
        path.write_bytes((CONTENTS[name] + content[len(CONTENTS[name]) :])[: len(content)])
    refuse("shards/train-0000", "tokenize")
    assert not (folder.parent / "executed").exists()


def test_a_shard_that_is_a_pickle_is_never_executed(refuse, folder, mark):
    for path in folder.glob("train-*.npy"):
        content, evil = path.read_bytes(), pickle.dumps(Payload(mark))
        path.write_bytes((evil + content[len(evil) :])[: len(content)])
    refuse("shards/train-0000", "tokenize")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("tokens", 5, "beyond the palette"), ("labels", 4, "label 4"), ("labels", -2, "label -2")],
)
def test_tokens_without_a_colour_and_labels_without_a_class(refuse, folder, field, value, words):
    for path in folder.glob("train-*.npy"):
        rewritten(path, field, value)
    refuse("shards/train-0000", words)


DIGITS = ["--data", "Digits", "--palette", REPO / "palettes" / "digits.npy", "--workers", 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--variants", 2], ["--variants 2", "Digits does not augment"]),
        (["--variants", -1], ["--variants"]),
        (["--variants", "nan"], ["--variants"]),
        (["--seed", -1], ["--seed"]),
        (["--workers", 0], ["--workers"]),
        (["--shard_images", 0], ["--shard_images"]),
        (["--shard_images", "1e9"], ["--shard_images"]),
        (["--max_bad_share", 2], ["--max_bad_share"]),
        (["--max_bad_share", "nan"], ["--max_bad_share"]),
        (["--engine", "dask"], ["--scheduler"]),
        (["--engine", "ray"], ["--engine"]),
        (["--scheduler", "tcp://127.0.0.1:1"], ["--scheduler", "--engine dask"]),
        (["--palette", "gone.npy"], ["gone.npy", "does not exist"]),
        (["--palette", "file"], ["file", "not a NumPy array"]),
        (["--data", "Digit"], ["--data", "Digits"]),
        (["--data.seed", -1], ["seed"]),
        (["--out", "file"], ["--out", "file"]),
        (["--out", "file/below"], ["--out", "file/below"]),
        (["--out", f"{NOT_HERE}/out"], ["--out", NOT_HERE]),
        (["--out", "n" * 300], ["--out", "n" * 40]),
        (["--out", "loop"], ["--out", "loop"]),
        (["--out", "."], ["--out", "holds other files"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) and str(value[0])[:2] == "--" else "",
)
def test_tokenizing_with_one_option_off(refused, tmp_path, options, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    refused("tokenize", *DIGITS, "--out", "out", *options, words=words)


@pytest.mark.parametrize("plan", [b"", b"{}", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", "a folder"])
def test_an_unfinished_folder_of_something_else_is_left_alone(refused, tmp_path, plan):
    work = tmp_path / "out" / ".unfinished"
    work.mkdir(parents=True)
    if plan == "a folder":
        (work / "plan.json").mkdir()
    else:
        (work / "plan.json").write_bytes(plan)
    refused("tokenize", *DIGITS, "--out", "out", words=["out"])


def test_a_finished_folder_of_something_else_is_left_alone(refused, folder):
    refused("tokenize", *DIGITS, "--out", "shards", words=["--out", "shards of other data or options"])
    (folder / "index.json").write_text("{}")
    refused("tokenize", *DIGITS, "--out", "shards", words=["shards/index.json is damaged"])
