"""Folders take a name in one move, and what had it is not lost where they cannot."""

import os

import pytest

from igpt.errors import UserError
from igpt.files import atomic_folder, partial_path, place_folder, take_place


def folder(path, content):
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder(tmp_path / "store", "old")
    with atomic_folder(tmp_path / "store") as written:
        (written / "file").write_text("new")
    assert (tmp_path / "store" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["store"]


def test_where_the_new_folder_cannot_take_the_name_the_old_one_gets_it_back(tmp_path):
    folder(tmp_path / "store", "old")
    with pytest.raises(UserError, match="cannot write"), atomic_folder(tmp_path / "store") as written:
        written.rmdir()  # as if the file system had lost it
    assert (tmp_path / "store" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["store"]


def test_a_placed_folder_removes_the_old_one(tmp_path):
    old, new = folder(tmp_path / "step", "old"), folder(tmp_path / "written", "new")
    place_folder(new, old)
    assert (old / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["step"]


def test_a_folder_that_cannot_be_placed_leaves_the_old_one(tmp_path):
    old, new = folder(tmp_path / "step", "old"), folder(tmp_path / "written", "new")
    folder(partial_path(tmp_path / "step.old"), "in the way")
    with pytest.raises(OSError, match="not empty"):
        place_folder(new, old)
    assert (old / "file").read_text() == "old"
    assert (new / "file").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        take_place(tmp_path / "nothing", old, tmp_path / "aside")
    assert (old / "file").read_text() == "old"
