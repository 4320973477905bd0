"""Data sets that are fetched: by one process, however many ask at once."""

import multiprocessing
import time

import pytest

from igpt.data import UserError
from igpt_datamodules.published import find_or_download


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
