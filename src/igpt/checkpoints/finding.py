"""From what a user names to a checkpoint (a file, a run's folder or name), and to the probe beside it."""

import json
import os
from pathlib import Path
from typing import Any

from igpt.checkpoints.format import LAST, META, newest_intact
from igpt.system import UserError

BEST = "best.ckpt"
RUNS = "runs"


def find_checkpoint(name: str | Path) -> Path:
    """The checkpoint that a path or a run's name stands for.

    Of a run's folder, or its folder of checkpoints, this is best.ckpt, or else last.ckpt, or else the newest that is
    intact. The folder of a sharded checkpoint stands for itself.

    Raises:
        UserError: it is a folder without a checkpoint. A file that is not there is left to whoever reads it.
    """
    path = Path(name)
    run = Path(RUNS) / path
    if len(path.parts) == 1 and run.is_dir() and not holds_checkpoint(path):  # a folder of pictures has the run's name
        path = run
    if not path.is_dir() or (path / META).is_file():
        return path
    for folder in (path / "checkpoints", path):
        for file in (folder / BEST, folder / LAST):
            if os.path.lexists(file):
                return file
        if (newest := newest_intact(folder)) is not None:
            return newest
    raise UserError(f"{path} is a folder without a checkpoint; name a .ckpt file, or the folder of a run")


def holds_checkpoint(path: Path) -> bool:
    """Whether a path is a file, or a folder that has a checkpoint in it."""
    return path.is_file() or (path / META).is_file() or any(path.glob("*.ckpt")) or is_run(path)


def is_run(folder: Path) -> bool:
    """Whether a folder holds what only a run holds."""
    kept = any((folder / name).is_file() for name in ("config.yaml", "commands.txt"))
    return kept or any((folder / "checkpoints").glob("*.ckpt"))


def read_probe_record(path: Path) -> dict[str, Any]:
    """Content of a probe.json; one of versions that knew one method or one kind of features gets today's form.

    Raises:
        OSError, ValueError, KeyError, TypeError or AttributeError: it cannot be read, or is none.
    """
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    methods, method = found.get("methods", {}), found["method"]
    known = {"methods": methods if method in methods else {**methods, method: found}}
    if isinstance(found.get("features"), str):
        known["features"] = {"norm": "normed", "grid": 1, "masks": 0, "standardise": True}
    return found | known
