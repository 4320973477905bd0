"""What of the runs' folders cannot be read is left out and said; all the rest stands."""

from collections.abc import Callable
from typing import TypeVar

from igpt.system import UserError, complain, in_one_line

Say = Callable[[str], object]  # takes a line about something that is left out
Read = TypeVar("Read")


def warn(line: str) -> None:
    """Say on standard error that something is left out."""
    complain(f"igpt: warning: left out: {in_one_line(line)}")


def attempt(read: Callable[[], Read], say: Say, otherwise: Read) -> Read:
    """What a reader gives; where its file is broken, the line about it is said and `otherwise` stands instead."""
    try:
        return read()
    except UserError as error:
        say(str(error))
        return otherwise
