"""Processes of their own for what a process can be told apart by: kills, signals, limits, two at once.

A fresh interpreter takes seconds to import torch and Lightning. These are forked from one that has imported them, once
for all tests of a worker, and has run nothing. How a command starts from nothing is held by the tests of the command
line, of the wheel, of plug-ins and of the current folder, which start interpreters.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["igpt.cli", "igpt.runs.trainer", "igpt.modules", "igpt.probing", "igpt_datamodules"])


class Forked:
    """A process that runs a function of a module and ends with what it gives; to be used as `subprocess.Popen` is.

    Args:
        function: of a module; what it returns is the exit code, as of `sys.exit`.
        arguments: of the function.
        cwd: the folder that it runs in; the current one, unless given.
        largest: limit of the size of a file, in bytes.
    """

    def __init__(
        self, function: Callable[..., object], *arguments: object, cwd: object = None, largest: int | None = None
    ) -> None:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        how = (str(cwd or Path.cwd()), dict(os.environ), largest, multiprocessing.get_start_method())
        self._process = CONTEXT.Process(target=_run, args=(function, arguments, *how, *(end for _, end in pipes)))
        self._process.start()
        self.pid, self._read = self._process.pid, ["", ""]
        for _, end in pipes:
            end.close()
        self._readers = [
            threading.Thread(target=self._collect, args=(number, begin), daemon=True)
            for number, (begin, _) in enumerate(pipes)
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, number: int, pipe: Connection) -> None:
        with pipe, os.fdopen(os.dup(pipe.fileno()), encoding="utf-8", errors="replace") as text:
            for line in text:
                self._read[number] += line

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float = 120) -> int:
        """Its exit code, when it has ended.

        Raises:
            TimeoutError: it has not.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"still there after {timeout} s; printed: {self._read}")
        for reader in self._readers:
            reader.join(10)
        return self._process.exitcode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """All that it printed, to stdout and to stderr, when it has ended."""
        self.wait(timeout)
        return self._read[0], self._read[1]

    def send_signal(self, number: int) -> None:
        """Send it a real signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as nobody can refuse."""
        if self._process.exitcode is None:
            self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()
        self.wait()


def igpt(*words: object, **how: object) -> Forked:
    """`igpt WORDS` in a process of its own."""
    return Forked(_igpt, *map(str, words), **how)


def _igpt(*words: str) -> int:
    from igpt.cli import main

    return main(list(words))


def _run(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    cwd: str,
    environment: dict[str, str],
    largest: int | None,
    start_method: str,
    *pipes: Connection,
) -> None:
    multiprocessing.set_start_method(start_method, force=True)  # of its own processes: as where nothing was forked
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if largest is not None:
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.exit(function(*arguments))
