"""`igpt runs`: what has been trained, how it went, and in which settings two runs differ."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from igpt.checkpoints import is_run
from igpt.report import gather_all, runs_in, warn
from igpt.system import UserError, check_unread, only_writer, percent, remove_folder

HEAD = ("name", "data", "model", "steps", "val loss", "test loss", "probe", "size")


def runs(folder: str = "runs", remove: str | None = None, diff: list[str] | None = None) -> None:
    """List runs, compare the settings of two, or remove one.

    A line a run: data, model, optimizer steps, losses in nats per pixel, test accuracy of the best layer's probe in per
    cent, and size on disk.

    Args:
        folder: that holds the runs.
        remove: name of a run to delete with its checkpoints, for good.
        diff: names or folders of two runs, whose settings are listed where they differ, with their losses.

    Raises:
        UserError: there is no such folder, or what is to be removed is no run, or another process uses it.
    """
    home = Path(folder)
    if diff is not None:
        show(difference(home, diff))
        return
    if not home.is_dir():
        raise UserError(f"{folder} is no folder; train first, or name the folder of your runs")
    if remove is not None:
        remove_run(home, remove)
        return
    found = runs_in(home)
    if not found:
        raise UserError(f"{folder} holds no runs; begin one with 'igpt fit --config digits_ar'")
    show([HEAD, *map(row, found)])


def show(rows: Sequence[Sequence[str]]) -> None:
    """Print a table with columns as wide as needed."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for each in rows:
        print("  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip())


def difference(home: Path, names: Sequence[str]) -> list[Sequence[str]]:
    """A table of the settings in which two runs differ, with what came out."""
    if len(names) != 2:
        raise UserError(f"--diff takes two runs, and {len(names)} are given")
    folders = [next((place for place in (home / name, Path(name)) if is_run(place)), home / name) for name in names]
    one, other = (dict(settings(config_of(place))) for place in folders)
    differing = [key for key in {**one, **other} if key != "name" and one.get(key) != other.get(key)]
    outcomes = list(zip(HEAD, *map(row, folders), strict=True))[3:-1]
    return [("", *names), *((key, one.get(key, "-"), other.get(key, "-")) for key in differing), *outcomes]


def config_of(folder: Path) -> Any:
    """The config that a run was trained by."""
    try:
        return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or "it is no YAML"
        raise UserError(f"--diff: {folder / 'config.yaml'} cannot be read ({why}); name runs of igpt fit") from error


def settings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The options of a config that are set, by their names on the command line, with their values as text."""
    if value is None:
        return
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))
    if not nested:
        yield name.removeprefix(".").replace(".init_args", ""), value if isinstance(value, str) else json.dumps(value)
        return
    for key, held in value.items() if isinstance(value, dict) else enumerate(value):
        yield from settings(held, f"{name}.{key}")


def remove_run(home: Path, name: str) -> None:
    """Delete the folder of one run, and of nothing else."""
    folder = home / name
    if Path(name).name != name or folder.is_symlink() or not folder.is_dir() or not is_run(folder):
        raise UserError(f"--remove {name} is no run in {home}; 'igpt runs' lists them")
    if other := next((child.name for child in folder.iterdir() if child.is_dir() and is_run(child)), None):
        raise UserError(f"--remove {name} holds other runs, such as {other}; move them away first")
    size = size_of(folder)
    with only_writer(folder, "leave --remove out"):
        check_unread(folder, "leave --remove out")
        remove_folder(folder)
    print(f"removed {folder}, {size}")


def row(folder: Path) -> tuple[str, ...]:
    """The line of a run; of one that cannot be read, its name and size."""
    try:
        run = gather_all([str(folder)], warn)[0]
    except UserError as error:
        warn(str(error))
        return (folder.name, *["-"] * (len(HEAD) - 2), size_of(folder))
    steps = run.steps or 0
    validated = run.val_loss_at(steps)
    model = f"{run.objective} {run.parameters / 1e6:.1f} M" if run.parameters else run.objective
    probe = run.probe.result.best.test_accuracy if run.probe else None
    losses = [
        f"{loss:.4f}" if loss is not None else "-"
        for loss in (validated.value if validated else None, run.tested(run.loss_tag))
    ]
    accuracy = percent(probe) if probe is not None else "-"
    return (folder.name, run.data.label, model, f"{steps:,}", *losses, accuracy, size_of(folder))


def size_of(folder: Path) -> str:
    """Bytes of all files in a folder, each counted once however many names it has."""
    files = {(stat.st_dev, stat.st_ino): stat.st_size for path in folder.rglob("*") if not path.is_dir()
             for stat in [path.lstat()]}  # fmt: skip
    return f"{sum(files.values()) / 1e6:,.1f} MB"
