"""The folder of a run: its name, where its checkpoints are, and what becomes of an earlier run of that name."""

import os
import sys
from pathlib import Path
from typing import Any

from igpt.checkpoints import LAST, is_intact, is_run, newest_intact, step_checkpoints
from igpt.parsing import config_name
from igpt.system import UserError, check_unread, lies_in
from igpt.training import is_main_process

OTHER_NAME = "give another --name"


def run_dir(config: Any) -> Path:
    """The folder of a run: RUNS_DIR/NAME, the name being that of the last config file if none is given."""
    files = config.get("config") or []
    name = config_name(str(files[-1])) if files else "unnamed"
    name = name if config.name is None else str(config.name)
    if name in ("", ".", "..") or Path(name).name != name or len(os.fsencode(name)) > 200:  # file systems take 255
        raise UserError(f"--name {name!r} is not the name of one folder; give a short one, and its place by --runs_dir")
    return Path(config.runs_dir) / name


def checkpoints_dir(config: Any) -> Path:
    """Where a run saves: `checkpoint.dirpath`, or the folder `checkpoints` of the run."""
    given = config.checkpoint.dirpath
    return Path(given).expanduser() if given else run_dir(config) / "checkpoints"


def last_checkpoint(folder: Path) -> Path | None:
    """What `--ckpt_path last` stands for: `last.ckpt`, or the newest intact step where that one is of no use.

    None where the folder holds no checkpoint; a UserError if none of those that it holds can be read.
    """
    last = folder / LAST
    if is_intact(last):
        return last
    there = os.path.lexists(last)
    if not there and not step_checkpoints(folder):
        return None
    newest = newest_intact(folder)
    if newest is None:
        raise UserError(
            f"--ckpt_path last: no checkpoint in {folder} can be read; leave the option out to start anew, which moves "
            "that run aside"
        )
    if is_main_process():
        state = "is missing" if not there else "is damaged" if last.exists() else "points to a file that is gone"
        print(f"{last} {state}; taking {newest.name}, the newest that is intact", file=sys.stderr)
    return newest


def check_place(config: Any) -> None:
    """Raise a UserError unless all that stands in a new run's places may be moved aside, an earlier run and no more."""
    folder = run_dir(config)
    reason = no_place(folder)
    if reason:
        raise UserError(f"--name: {folder} {reason}; give another --name, or move it away yourself")
    check_unread(folder, OTHER_NAME)
    for option, file in files_used(config):
        if folder.is_dir() and lies_in(file, folder):
            raise UserError(
                f"--name: {option} {file} lies in {folder}, which would be moved aside as an earlier run; give the "
                f"new run another name, such as --name {folder.name}_more"
            )
    saves = checkpoints_dir(config)
    if not lies_in(saves, folder) and step_checkpoints(saves):
        raise UserError(
            f"--checkpoint.dirpath {saves} holds checkpoints already; give another folder, or go on from them with "
            "--ckpt_path last"
        )


def no_place(folder: Path) -> str | None:
    """Why what stands in the place of a new run cannot be moved aside, if so."""
    if folder.is_symlink():
        return "is a link"
    if folder.exists() and not folder.is_dir():
        return "is a file"
    inside = list(folder.iterdir()) if folder.exists() else []
    if inside and not is_run(folder):
        return "holds files, but no run of igpt"
    other = next((child.name for child in inside if child.is_dir() and is_run(child)), None)
    return f"holds other runs, such as {other}" if other else None


def files_used(config: Any) -> list[tuple[str, Path]]:
    """Options and files that a new run begins with: its configs, and checkpoints that hold its first weights."""
    used = [("--config", file) for file in config.get("config") or []]
    given = [(f"--model.{name}", value) for name, value in config.model.items()]
    used += [(option, value) for option, value in given if option.endswith((".start_from", ".pretrained"))]
    return [(option, Path(str(file))) for option, file in used if file is not None]


def move_aside(folder: Path) -> None:
    """Give an earlier run another name, `NAME.1` or the next that is free, so that starting anew never loses one."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    check_unread(folder, OTHER_NAME)
    number = 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.{number}")):
        number += 1
    folder.rename(aside)
    words = f"{folder} held an earlier run, which is now {aside}; to go on with a run, use --ckpt_path last"
    print(words, file=sys.stderr)
