"""Plain data of files in a run's folder, looked at one by one: what is off is a line that names file and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from igpt.system import UserError

LARGEST = 10**15  # no figure of a run is larger, and none up to here overflows in what is computed from it
ROUNDING = 1e-6  # a mean of shares in float32 may be so far above 1
Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number to compute with: not NaN, not beyond all measure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_integer(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, int) and is_number(value)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of things."""
    return is_integer(value) and value >= 0


def is_share(value: Any) -> bool:
    """Whether it is a share of 1, such as an accuracy."""
    return is_number(value) and 0 <= value <= 1 + ROUNDING


def is_mapping(value: Any) -> bool:
    """Whether it is a JSON object whose keys are text."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def is_list(value: Any) -> bool:
    """Whether it is a list."""
    return isinstance(value, list)


class Fields:
    """A mapping of a file; asking for a field that is missing or of another kind is a UserError.

    Args:
        content: what the file holds, or holds within.
        path: the file.
        remedy: what to do about it where it is broken.
        place: of `content` in the file, such as "model.init_args".
    """

    def __init__(self, content: Any, path: Path, remedy: str, place: str = "") -> None:
        self.path, self.remedy, self.place = path, remedy, place
        if not is_mapping(content):
            raise self.off(f"'{place}' is off" if place else "it does not hold what it should")
        self.content = content

    def off(self, what: str) -> UserError:
        """The line about this file."""
        return UserError(f"{self.path}: {what}; {self.remedy}")

    def at(self, name: str) -> str:
        """Where a field stands in the file."""
        return f"{self.place}.{name}" if self.place else name

    def need(self, name: str, check: Check) -> Any:
        """The value of a field that must be there."""
        value = self.content.get(name)
        if not check(value):
            raise self.off(f"field '{self.at(name)}' is missing or off")
        return value

    def may(self, name: str, check: Check) -> Any:
        """The value of a field, or None where there is none."""
        return None if self.content.get(name) is None else self.need(name, check)

    def inside(self, name: str) -> "Fields":
        """A mapping within; an empty one where there is none."""
        return Fields(self.may(name, is_mapping) or {}, self.path, self.remedy, self.at(name))

    def all_inside(self, name: str) -> list["Fields"]:
        """A list of mappings; empty where there is none."""
        rows = enumerate(self.may(name, is_list) or [])
        return [Fields(row, self.path, self.remedy, f"{self.at(name)}[{index}]") for index, row in rows]

    def as_text(self, content: Any) -> str:
        """Plain data as text that is equal where they are."""
        try:
            return json.dumps(content, sort_keys=True, default=str)
        except (TypeError, ValueError, RecursionError) as error:  # keys of several kinds, or a thing within itself
            raise self.off(f"'{self.place}' is no plain data") from error


def again(verb: str) -> str:
    """The remedy for a record that a command writes."""
    return f"make it again with '{verb}', or move it away"


def read_text(path: Path, remedy: str) -> str:
    """The text of a plain file.

    Raises:
        UserError: it cannot be read, is no file, or not UTF-8.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} is no readable file; {remedy}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text; {remedy}") from error


def open_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_text(path, remedy))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON; {remedy}") from error
