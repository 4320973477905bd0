"""Who writes where: one process at a time, and a killed one holds nothing."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from igpt.system import locks
from igpt.system.errors import UserError
from igpt.system.locks import check_unread, in_turn, only_writer, reader

HOLD = """
import sys, time
from igpt.system.locks import only_writer
with only_writer(sys.argv[1], "wait"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_folder_and_what_to_do(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "run", "give another --name"),
        pytest.raises(UserError, match=r"another igpt writes to .*run; .* or give another --name"),
        only_writer(tmp_path / "run", "give another --name"),
    ):
        pass


def test_a_folder_by_another_path_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with (
        only_writer(tmp_path / "run", "wait"),
        pytest.raises(UserError),
        only_writer(tmp_path / "x" / ".." / "link", "wait"),
    ):
        pass


def test_the_lock_stays_where_the_folder_is_moved(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run", "wait"):
        (tmp_path / "run").rename(tmp_path / "run.1")
        with pytest.raises(UserError), only_writer(tmp_path / "run", "wait"):
            pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError), only_writer(tmp_path / "run", "wait"):
        pass
    holder.kill()
    holder.communicate()
    with only_writer(tmp_path / "run", "wait"):
        pass


def test_writers_of_a_small_file_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")

    def add() -> None:
        for _ in range(20):
            with in_turn(path):
                path.write_text(str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "80"


def test_a_turn_that_never_comes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with (
        in_turn(tmp_path / "count"),
        pytest.raises(UserError, match="end it, then try again"),
        in_turn(tmp_path / "count"),
    ):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write beside .*run"), only_writer(tmp_path / "file" / "run", "wait"):
        pass


def test_a_folder_that_others_read_is_not_to_be_moved_until_the_last_has_ended_or_was_killed(tmp_path: Path) -> None:
    run, hold = tmp_path / "run [1]", HOLD.replace('only_writer(sys.argv[1], "wait")', "reader(sys.argv[1])")
    run.mkdir()
    words = [sys.executable, "-c", hold.replace("import only_writer", "import reader"), run]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with reader(run), pytest.raises(UserError, match=r"another igpt reads .*run \[1\]; .* or give another --name"):
            check_unread(run, "give another --name")
        with pytest.raises(UserError, match="another igpt reads"):
            check_unread(run, "give another --name")
        other.kill()
    check_unread(run, "give another --name")
    assert [path.name for path in tmp_path.iterdir()] == ["run [1]"]
