"""Parsers of every verb: no abbreviations, and errors that fit in one line."""

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from igpt.errors import UserError

LONGEST = 400


class CommandParser(LightningArgumentParser):
    """jsonargparse's parser, with errors as `UserError`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("usage", "%(prog)s [options]")
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Raise instead of printing the usage and leaving."""
        raise UserError(one_line(message)) from ex


def one_line(message: str) -> str:
    """A parser's message without its line breaks, repetitions of the same reason, or endless lists."""
    lines = [line.strip(" -\t") for line in message.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(lines))
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
