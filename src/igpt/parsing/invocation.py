"""The command line that is being run, for the records that stand beside every result."""

import shlex
from contextvars import ContextVar

_words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


def invoked(verb: str, arguments: list[str]) -> None:
    """Remember what was typed."""
    _words.set((verb, *arguments))


def command_line() -> str:
    """What was typed, quoted so that a shell takes it again; empty where a function was called from Python."""
    return shlex.join(["igpt", *_words.get()]) if _words.get() else ""
