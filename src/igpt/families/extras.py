"""Libraries that are not installed with igpt alone."""

from importlib import import_module
from typing import Any

from igpt.system import UserError


def library(name: str, extra: str, what: str) -> Any:
    """A module of an optional library.

    Args:
        name: of the module, such as timm.
        extra: of igpt, with which it is installed.
        what: needs it, an option or a class.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{what} needs {package}; install it with: pip install 'igpt[{extra}]'") from error
