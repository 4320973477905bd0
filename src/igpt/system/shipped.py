"""Configs and palettes that come with igpt: in a checkout, or inside the installed package."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from igpt.system.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(kind: str) -> Path:
    """The folder "configs" or "palettes"."""
    inside = PACKAGE / "shipped" / kind
    return inside if inside.is_dir() else PACKAGE.parents[1] / kind


def shipped_configs() -> dict[str, Path]:
    """The configs by name: digits_ar, cifar10/ar_small, ..."""
    home = shipped("configs")
    found = sorted(home.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return {path.relative_to(home).with_suffix("").as_posix(): path for path in found}


def find_config(given: str) -> str:
    """A file as it is; else the config of that name that comes with igpt, with or without its folder's slash.

    Raises:
        UserError: there is neither.
    """
    if os.path.exists(given) or not given or given.lstrip().startswith("{"):
        return given
    name = given.removeprefix("configs/").removesuffix(".yaml")
    configs = shipped_configs()
    names = configs | {key.replace("/", "_"): path for key, path in configs.items()}
    if name in names:
        return str(names[name])
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"--config {given} does not exist; {hint}'igpt configs' lists those that come with igpt")


def find_palette(given: str) -> Path:
    """A file as it is; else, for `palettes/NAME.npy`, the one of that name that comes with igpt, if there is one."""
    own, come = Path(given), shipped("palettes") / Path(given).name
    return come if not own.exists() and own.parent.name == "palettes" and come.is_file() else own


def with_configs_found(words: list[str]) -> list[str]:
    """A command line with the files of its `--config` in place of names; the rest as it is."""
    return list(_found(iter(words)))


def _found(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        option, equals, value = word.partition("=")
        if option not in ("--config", "-c"):
            yield word
        elif equals:
            yield f"{option}={find_config(value)}"
        else:
            yield word
            yield from (find_config(value) for value in [next(words, None)] if value is not None)
