"""Errors of Python callers name Python's arguments, where the verbs name options and fields of configs."""

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from igpt.system import UserError

P = ParamSpec("P")
T = TypeVar("T")
NAMES = {
    "accelerator": "device",
    "class": "classes",
    "ckpt": "path",
    "complete": "images",
    "files": "images",
    "mask": "region",
}
OPTION = re.compile(r"(?<![\w-])--(?:(?:data|model|trainer)\.)?(?:init_args\.)?([a-z]\w*)")
FIELD = re.compile(r"\b(?:data|model|trainer)\.init_args\.")
COMMAND = re.compile(r"'?\bigpt [a-z]+ ")  # what follows is for a shell, and stays as it is


def in_python(text: str) -> str:
    """A message with `--top_k 5` as `top_k 5`, and `model.init_args.order` as `order`."""
    command = COMMAND.search(text)
    end = command.start() if command else len(text)
    words = OPTION.sub(lambda found: NAMES.get(found[1], found[1]), text[:end])
    return re.sub("^start_from:", "pretrained:", FIELD.sub("", words) + text[end:])


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose `UserError`s are worded for Python."""

    @wraps(function)
    def worded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise UserError(in_python(str(error))) from error

    return worded
