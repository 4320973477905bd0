"""Standard streams and signals: escaping what is printed, and streams that are closed, full or read by nobody."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

READER_GONE = 141  # exit code where nobody reads the output any more: what a shell gives a program ended by SIGPIPE
EVERY_S = (0.5, 10.0)  # seconds between two counts on a terminal, and in a file
KEPT = "\n\r\t"
ASKED_TO_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""The signals by which a scheduler, or Ctrl-C, asks a run to end in good order; Windows knows no SIGUSR1."""


def shown(text: str) -> str:
    """A text with its control characters escaped; names of files that strangers chose may have some."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in KEPT else ascii(one)[1:-1] for one in text)


def in_one_line(text: str) -> str:
    """The same, with line breaks and tabs escaped as well."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def percent(share: float) -> str:
    """An accuracy as people read it; files keep shares of 1."""
    return f"{100 * share:.1f} %"


class OutputError(Exception):
    """Standard output cannot be written to: nobody reads it any more, or its disk is full. See `__cause__`."""


class Shown:
    """Standard output that escapes control characters (`shown`) and what its encoding does not have."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, and return the number of characters of `text`."""
        encoding = self.stream.encoding or "utf-8"
        try:
            self.stream.write(shown(text).encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            raise OutputError from error
        return len(text)

    def flush(self) -> None:
        """Write out what is still in memory."""
        try:
            self.stream.flush()
        except OSError as error:
            raise OutputError from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def open_closed_streams() -> None:
    """Have standard streams that were closed (`>&-`) lead nowhere, so that no file of ours gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def lose_output(stream: TextIO, error: BaseException | None) -> int:
    """Have what a stream still holds go nowhere, say why if somebody can read it, and return the exit code."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    return complain(f"igpt: what was to be printed cannot be written: {getattr(error, 'strerror', error)}", 1)


def complain(text: str, code: int = 2) -> int:
    """Print to stderr, where somebody may still read, and return the exit code."""
    with suppress(OSError):
        print(text, file=sys.stderr)
    return code


class Progress:
    """A count and the time to go on stderr: a terminal's line is renewed and taken away at the end, a file gets a line
    every ten seconds.

    Used as a context manager. A `quiet` one writes nothing to a file.
    """

    def __init__(self, total: int, what: str, quiet: bool = False) -> None:
        self.total, self.what, self.done = total, what, 0
        self.terminal = sys.stderr.isatty()
        self._every = math.inf if quiet and not self.terminal else EVERY_S[not self.terminal]
        self._began = self._shown_at = time.monotonic()
        self._width = 0

    def __enter__(self) -> "Progress":
        if self.terminal:
            self._show()
        return self

    def __exit__(self, *error: object) -> None:
        if self.terminal:
            print("\r" + " " * self._width, end="\r", file=sys.stderr, flush=True)

    def add(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        if time.monotonic() - self._shown_at >= self._every:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        start, end = ("\r", "") if self.terminal else ("", "\n")
        line = f"{self.done:,} of {self.total:,} {self.what}"
        if 0 < self.done < self.total:
            line += f", {clock((self._shown_at - self._began) / self.done * (self.total - self.done))} left"
        self._width = max(self._width, len(line))
        print(start + line.ljust(self._width if self.terminal else 0), end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A time as minutes and seconds, 1:37."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def with_progress(items: Iterable[T], total: int, what: str, quiet: bool = False) -> Iterator[T]:
    """The same items, counted on stderr (see `Progress`)."""
    with Progress(total, what, quiet) as progress:
        for item in items:
            yield item
            progress.add(1)
