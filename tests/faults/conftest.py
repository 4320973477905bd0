"""What every broken input must come to: one line, the promised exit code, no traceback, nothing half-written."""

import hashlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 30  # seconds after which a refusal is no refusal but a wait


class Payload:
    """Makes a folder if it is ever unpickled with code execution."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.system, (f"mkdir '{self.mark}'",))


@pytest.fixture
def mark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A path that does not exist, and must not when the test is over: that is where a `Payload` leaves its mark."""
    path = tmp_path_factory.mktemp("mark") / "executed"
    yield path
    assert not path.exists()


def listing(folder: Path) -> dict[str, str]:
    """Everything in a folder: what it is, and the checksum of a file's bytes. Links are not followed."""

    def content(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else oct(path.stat().st_mode)

    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def assert_one_line(err: str, verb: str, words: Iterable[str] = ()) -> None:
    """The whole of stderr is one printable line that begins with the verb, has the words, and is no traceback."""
    assert err.count("\n") == 1, err
    assert err.endswith("\n"), err
    assert err.startswith(f"igpt {verb}: "), err
    assert err[:-1].isprintable(), err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


@contextmanager
def patience(seconds: float = PATIENCE) -> Iterator[None]:
    """Raise inside the block once so much time has passed, also where it waits for a pipe."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refused(igpt: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in an empty folder of its own, and expect the four promises of a command that is refused.

    `refused("probe", "--ckpt", "gone.ckpt", words=["gone.ckpt"])`: exit code 2; one line on stderr, with these words;
    no traceback; and every file and folder as it was before.
    """
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)  # notes such as that of the seed are no complaints

    def check(verb: str, *arguments: object, words: Iterable[str] = (), code: int = 2) -> None:
        before = listing(tmp_path)
        with patience():
            found, _, err = igpt(verb, *arguments)
        assert found == code, err
        assert_one_line(err, verb, words)
        assert listing(tmp_path) == before

    yield check
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
