"""Plug-ins of other packages, by entry points, and whose classes may be named (docs/security.md)."""

import os
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from igpt.system.errors import UserError

GROUP, SOURCES = "igpt.datamodules", "igpt.sources"  # data modules, and sources of features
ALLOW, ALLOWED = "--allow-imports", "IGPT_ALLOW_IMPORTS"  # the option, and the variable that commands inherit it by


def registered(group: str = GROUP) -> list[EntryPoint]:
    """All entry points of a group; built-in data modules are among them: they have no privileged path."""
    return list(_registered(group, tuple(sys.path)))


@lru_cache(maxsize=8)
def _registered(group: str, path: tuple[str, ...]) -> list[EntryPoint]:
    """Read once for each search path: that reads a file of every package that is installed."""
    return sorted(entry_points(group=group), key=lambda point: point.name)


def load_plugins() -> None:
    """Import every plug-in's data modules, so that configs can name them and the command line their short names.

    One that fails to import is named in a warning; the others work on.
    """
    for point in registered():
        try:
            point.load()
        except (Exception, SystemExit) as error:
            package = point.dist.name if point.dist else "unknown package"
            problem = f"{type(error).__name__}: {error}".replace("\n", " ")
            warnings.warn(
                f"data module {point.name} of {package} cannot be imported ({problem}); it is left out", stacklevel=2
            )


def packages() -> set[str]:
    """Top-level packages that registered plug-ins come from, with those that hold the classes they pass on."""
    found = {point.module for point in registered()}
    for point in registered():
        kind = getattr(sys.modules.get(point.module), point.attr, None)
        found.add(getattr(kind, "__module__", point.module))
    return {module.partition(".")[0] for module in found}


def allowed_imports() -> set[str]:
    """Modules that the user has allowed configs and checkpoints to name, with all below them."""
    return set(os.environ.get(ALLOWED, "").replace(",", " ").split())


def split_allowed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line without `--allow-imports MODULE`, and the modules.

    Raises:
        UserError: no module follows, or it is no name of one.
    """
    rest, names = [], []
    given = iter(words)
    for word in given:
        option, equals, name = word.partition("=")
        if option.replace("_", "-") != ALLOW:
            rest.append(word)
            continue
        name = name if equals else next(given, "")
        if not all(part.isidentifier() for part in name.split(".")) or name.partition(".")[0] == "jsonargparse":
            raise UserError(f"{ALLOW} {name!r} is no module that can be allowed; give its name, such as my_package")
        names.append(name)
    return rest, names


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
