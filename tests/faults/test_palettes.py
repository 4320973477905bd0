"""Palette files that are none, to the verbs that read one."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from tests.faults.conftest import Payload


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def header(text, body=b"", version=(1, 0)):
    """A .npy file with any header."""
    written = text.encode("latin-1") + b"\n"
    return (
        b"\x93NUMPY" + bytes(version) + len(written).to_bytes(2 if version == (1, 0) else 4, "little") + written + body
    )


def zipped(**members):
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


def with_member_outside():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../evil", "evil")
    return stream.getvalue()


COLORS = np.zeros((17, 3), np.float32)
WHOLE = saved(COLORS)
SHAPED = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
PALETTES = {
    "empty": b"",
    "text": b"17 colours",
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "a signature alone": b"\x93NUMPY",
    "a version to come": header(SHAPED % "(17, 3)", bytes(204), (9, 0)),
    "a header that is no literal": header("__import__('os').mkdir('executed')"),
    "a header that is a list": header("[1, 2]"),
    "a header without a shape": header("{'descr': '<f4', 'fortran_order': False}"),
    "a header with more": header("{'descr': '<f4', 'fortran_order': False, 'shape': (17, 3), 'more': 1}", bytes(204)),
    "a header nested deeply": header("(" * 9_000),
    "a type that is none": header("{'descr': 'abc', 'fortran_order': False, 'shape': (17, 3)}", bytes(204)),
    "a shape below zero": header(SHAPED % "(-17, 3)", bytes(204)),
    "a shape of words": header(SHAPED % "('17', 3)", bytes(204)),
    "a shape of four gigabytes": header(SHAPED % "(333333333, 3)", bytes(204)),
    "a shape beyond all memory": header(SHAPED % f"({10**15}, 3)", bytes(204)),
    "a shape beyond all numbers": header(SHAPED % f"({10**40}, 3)", bytes(204)),
    "a header longer than the file": b"\x93NUMPY\x02\0" + (2**31).to_bytes(4, "little") + b"{",
    "objects": saved(np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "a record": saved(np.zeros(17, [("r", "f4"), ("g", "f4"), ("b", "f4")])),
    "whole numbers": saved(COLORS.astype(np.uint8)),
    "complex numbers": saved(COLORS.astype(np.complex64)),
    "words": saved(np.array([["a", "b", "c"]])),
    "one number": saved(np.float32(0)),
    "one row": saved(COLORS[0]),
    "no colours": saved(COLORS[:0]),
    "four channels": saved(np.zeros((17, 4), np.float32)),
    "three dimensions": saved(COLORS[None]),
    "40,000 colours": saved(np.zeros((40_000, 3), np.float32)),
    "out of range": saved(COLORS + 2),
    "NaN": saved(COLORS * np.nan),
    "infinity": saved(COLORS + np.float32(np.inf)),
    "a colour too few": saved(COLORS[1:]),
    "an archive of arrays": zipped(colors=COLORS),
    "an archive cut short": zipped(colors=COLORS)[:-30],
    "an archive with a member outside": with_member_outside(),
    "a ZIP of nothing": b"PK\x05\x06" + bytes(18),
    "a ZIP's beginning": b"PK\x03\x04" + bytes(100),
    **{f"cut at {share} %": WHOLE[: len(WHOLE) * share // 100] for share in range(10, 100, 10)},
}


TOKENIZE = ["--data", "Digits", "--out", "shards", "--workers", 1, "--palette"]


@pytest.mark.parametrize("name", [name for name in PALETTES if name != "a colour too few"])
def test_a_broken_palette(refused, tmp_path, name):
    (tmp_path / "bad.npy").write_bytes(PALETTES[name])
    refused("tokenize", *TOKENIZE, "bad.npy", words=["bad.npy"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["text", "a shape beyond all memory", "out of range", "a colour too few"])
def test_a_broken_palette_to_train_with(refused, digits_run, tmp_path, name):
    (tmp_path / "bad.npy").write_bytes(PALETTES[name])
    refused("fit", "--config", digits_run.config, "--model.init_args.palette", "bad.npy", words=["bad.npy"])


@pytest.mark.parametrize("content", ["pickle", "npy"])
def test_a_palette_with_code_in_it_is_not_executed(refused, digits_run, tmp_path, mark, content):
    evil = pickle.dumps(Payload(mark))
    if content == "npy":
        evil = header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", evil)
    (tmp_path / "bad.npy").write_bytes(evil)
    refused("fit", "--config", digits_run.config, "--model.init_args.palette", "bad.npy", words=["bad.npy"])


@pytest.mark.parametrize("place", ["folder.npy", "pipe.npy", "/dev/zero"])
def test_a_palette_that_is_no_file(refused, tmp_path, place):
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")
    refused("tokenize", *TOKENIZE, place, words=[place])
