"""Data sets that are fetched: by one process, however many ask at once."""

import hashlib
import multiprocessing
import socket
import time

import pytest
from torchvision import datasets

from igpt.system.errors import UserError
from igpt_datamodules import CIFAR10, STL10
from igpt_datamodules.files import find_or_download


class Archive:
    """What torchvision tells of a data set."""

    filename, tgz_md5 = "archive.tar.gz", "0"


def fetch_into(root, start=None):
    """As torchvision: look for the files, or fetch them, which takes a while and two at once would spoil."""

    def read(download):
        if (root / "files").exists():
            return "found"
        if not download:
            raise RuntimeError("Dataset not found")
        (root / "half").mkdir()  # fails where another is at it
        time.sleep(0.3)
        (root / "half").rename(root / "files")
        return "fetched"

    if start is not None:
        start.wait()
    return find_or_download(Archive, str(root), True, read)


def ask(root, start, said):
    said.put(fetch_into(root, start))


def test_of_several_processes_that_start_at_once_one_fetches_and_the_others_find(tmp_path):
    context = multiprocessing.get_context("fork")
    root, start, said = tmp_path / "data", context.Barrier(4), context.SimpleQueue()
    processes = [context.Process(target=ask, args=(root, start, said)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(said.get() for _ in processes) == ["fetched", "found", "found", "found"]
    assert [path.name for path in root.iterdir()] == ["files"]


def test_a_fetch_that_fails_leaves_no_folder(tmp_path):
    def read(download):
        raise RuntimeError("no network")

    with pytest.raises(UserError, match=r"cannot be downloaded \(no network\)"):
        find_or_download(Archive, str(tmp_path / "data"), True, read)
    assert not (tmp_path / "data").exists()


def never(download):
    """As torchvision where the archive is damaged: it would fetch another."""
    if download:
        pytest.fail("went to the network")
    raise RuntimeError("Dataset not found or corrupted")


def test_a_damaged_archive_is_named_and_nothing_is_fetched_where_that_is_not_wanted(tmp_path):
    (tmp_path / Archive.filename).write_bytes(b"half of it")
    with pytest.raises(UserError, match=r"archive\.tar\.gz is damaged: its md5 is not 0, and download is false"):
        find_or_download(Archive, str(tmp_path), False, never)
    assert [path.name for path in tmp_path.iterdir()] == [Archive.filename]


def test_a_whole_archive_is_unpacked_without_a_download(tmp_path):
    (tmp_path / Archive.filename).write_bytes(b"whole")

    class Whole(Archive):
        tgz_md5 = hashlib.md5(b"whole").hexdigest()

    asked = []

    def read(download):
        asked.append(download)
        if not download:
            raise RuntimeError("Dataset not found")
        return "unpacked"

    assert find_or_download(Whole, str(tmp_path), False, read) == "unpacked"
    assert asked == [False, True]


@pytest.mark.parametrize("kind", [CIFAR10, STL10])
def test_download_false_never_goes_to_the_network(kind, tmp_path, monkeypatch):
    (tmp_path / getattr(datasets, kind.__name__).filename).write_bytes(b"damaged")
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(UserError, match="is damaged"):
        kind(root=str(tmp_path), download=False).prepare_data()
