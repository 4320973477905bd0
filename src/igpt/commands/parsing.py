"""Parsers of every verb: no abbreviations, and errors that fit in one line."""

import difflib
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from igpt import modules
from igpt.errors import UserError
from igpt.plugins import registered

LONGEST = 400


class CommandParser(LightningArgumentParser):
    """jsonargparse's parser, with errors as `UserError`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("usage", "%(prog)s [options]")
        super().__init__(*args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build the classes; a UserError of one of them comes out as it is, not wrapped in a parser's message."""
        try:
            return super().instantiate(*args, **kwargs)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__
            raise cause or error from None

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        """The name that Lightning still calls `instantiate` by; jsonargparse warns about it."""
        return self.instantiate(cfg, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UserError(one_line(message)) from ex


def one_line(message: str) -> str:
    """A parser's message as one line that begins with the option it is about."""
    text = re.sub(r"\s+", " ", "; ".join(dict.fromkeys(line.strip(" -\t") for line in message.splitlines())))
    text = re.sub(r'^Parser key "([^"]*)":;? ?', r"--\1: ", text)
    wrong_class = re.search(r"Expected a dot import path string: (\S+?)(;|$)", text)
    if wrong_class:
        return f"{text.partition(':')[0]}: {no_such_class(text, wrong_class[1])}"
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    text = re.sub(r"^(the following arguments are required: )(.*)$", required, text)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def required(match: re.Match[str]) -> str:
    """Missing options by the names that one types."""
    names = [f"--{name.rpartition('.')[2]}" for name in match[2].split(", ")]
    return f"{match[1]}{', '.join(names)}; see --help, or take a file from configs/ with --config"


def no_such_class(text: str, name: str) -> str:
    """The line for a class name that is not known; `text` begins with the option."""
    models = [name for name in modules.__all__ if name not in ("PixelModule", "GenerativeModule")]
    known = [point.name for point in registered()] if text.startswith("--data") else models
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no class '{name}'; {hint}choose from {', '.join(known)}, or give the full path of a class"
