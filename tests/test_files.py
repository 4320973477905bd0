"""Folders and links take a name in one move, and what had it is not lost where they cannot."""

import os

import pytest

from igpt.system.errors import UserError
from igpt.system.files import (
    atomic_folder,
    atomic_path,
    check_own,
    digest_of,
    link_last,
    partial_path,
    remove_partial,
    same_file,
    take_place,
)


def folder(path, content):
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_file_that_is_half_written_has_another_name_with_its_suffix_and_goes(tmp_path):
    (tmp_path / "a.b.npy").write_text("old")
    writing = atomic_path(tmp_path / "a.b.npy")
    written = writing.__enter__()
    written.write_text("half")
    assert written.parent == tmp_path
    assert written.suffix == ".npy"
    assert written.name.startswith(".a.b.")
    assert not writing.__exit__(RuntimeError, RuntimeError("stopped"), None)
    assert (tmp_path / "a.b.npy").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.b.npy"]


def test_a_folder_that_a_process_of_the_same_id_left_is_begun_anew(tmp_path):
    folder(partial_path(tmp_path / "store"), "left")
    with atomic_folder(tmp_path / "store") as written:
        assert not list(written.iterdir())
    assert os.listdir(tmp_path) == ["store"]


def test_the_digest_of_plain_data_is_that_of_its_content_in_any_order():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})


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


def test_a_link_to_a_folder_stays_a_link_when_the_folder_is_replaced(tmp_path):
    folder(tmp_path / "disk", "old")
    (tmp_path / "store").symlink_to("disk")
    with atomic_folder(tmp_path / "store") as written:
        (written / "file").write_text("new")
    assert (tmp_path / "store").is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["disk", "store"]


def begins_with_igpt(path):
    return path.read_text().startswith("igpt")


def test_what_the_verb_wrote_and_what_is_not_there_may_be_replaced(tmp_path):
    check_own(tmp_path / "nothing", begins_with_igpt)
    (tmp_path / "empty").mkdir()
    check_own(tmp_path / "empty", begins_with_igpt)
    (tmp_path / "mine").write_text("igpt")
    check_own(tmp_path / "mine", begins_with_igpt)
    folder(tmp_path / "store", "igpt")
    check_own(tmp_path / "store", lambda store: begins_with_igpt(store / "file"), ("f*",))


@pytest.mark.parametrize("content", [b"yours", b"\xff\xfe", b""])
def test_what_the_verb_did_not_write_is_never_replaced(tmp_path, content):
    (tmp_path / "yours").write_bytes(content)
    with pytest.raises(UserError, match=r"yours is not of this command and would be lost; .* another --store"):
        check_own(tmp_path / "yours", begins_with_igpt, option="--store")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(UserError, match="link is not of this command"):
        check_own(tmp_path / "link", begins_with_igpt)


def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path):
    folder(tmp_path / "store", "igpt")
    for name, make in {
        "notes.txt": lambda path: path.write_text("igpt"),
        "fine": lambda path: path.mkdir(),
        "flink": lambda path: path.symlink_to("file"),
    }.items():
        make(tmp_path / "store" / name)
        with pytest.raises(UserError, match=f"store/{name} is not of this command"):
            check_own(tmp_path / "store", lambda store: begins_with_igpt(store / "file"), ("f*",))
        os.rename(tmp_path / "store" / name, tmp_path / name)


def test_a_placed_folder_removes_the_old_one(tmp_path):
    old, new = folder(tmp_path / "step", "old"), folder(tmp_path / "written", "new")
    take_place(new, old, durable=True)
    assert (old / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["step"]


def test_a_folder_that_cannot_be_placed_leaves_the_old_one(tmp_path):
    old, new = folder(tmp_path / "step", "old"), folder(tmp_path / "written", "new")
    folder(tmp_path / f".step.{os.getpid()}.old", "in the way")
    with pytest.raises(OSError, match="not empty"):
        take_place(new, old)
    assert (old / "file").read_text() == "old"
    assert (new / "file").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        take_place(tmp_path / "nothing", old)
    assert (old / "file").read_text() == "old"


def refuse(*paths, **how):
    raise OSError("not on this disk")


@pytest.fixture(params=["symbolic links", "second names", "neither"])
def disk(request, monkeypatch):
    """What the disk knows."""
    if request.param != "symbolic links":
        monkeypatch.setattr(os, "symlink", refuse)
    if request.param == "neither":
        monkeypatch.setattr(os, "link", refuse)
    return request.param


def test_a_link_stands_for_the_newest_file_whatever_kind_of_link_the_disk_knows(disk, tmp_path):
    link = tmp_path / "last"
    for name in ("one", "two", "two"):
        (tmp_path / name).write_text(name)
        link_last(tmp_path / name, link)
        assert link.read_text() == name
        assert same_file(link, tmp_path / name) == (disk != "neither")
        assert link.is_symlink() == (disk == "symbolic links")
    assert sorted(os.listdir(tmp_path)) == ["last", "one", "two"]


def test_a_link_that_cannot_be_made_leaves_the_old_one(disk, tmp_path, monkeypatch):
    (tmp_path / "one").write_text("one")
    link_last(tmp_path / "one", tmp_path / "last")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="not on this disk"):
            link_last(folder(tmp_path / "two", "two"), tmp_path / "last")
    assert (tmp_path / "last").read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == ["last", "one", "two"]


def test_what_a_running_process_writes_stays_and_so_does_all_where_nobody_can_tell(tmp_path, monkeypatch):
    running, killed = tmp_path / f".a.{os.getppid()}.partial", tmp_path / ".a.4194305.partial"  # above Linux's highest
    running.touch()
    killed.touch()
    with monkeypatch.context() as patch:
        patch.delattr(os, "getpgid")
        remove_partial(tmp_path)
    assert killed.exists()
    remove_partial(tmp_path)
    assert os.listdir(tmp_path) == [running.name]
