"""The manifest that `igpt curate` writes: which files of a folder to read."""

import csv
import json
import os
from pathlib import Path
from typing import Any

from igpt.data import UserError
from igpt_datamodules.files.stored import Stored


def kept_files(manifest: str | Path) -> set[str]:
    """Files that a manifest keeps, as paths below its data's root, TAR:MEMBER inside a tar.

    Raises:
        UserError: there is no such file, it is no manifest, or it keeps no file.
    """
    path = Path(manifest)
    try:
        kept = {row["file"] for row in rows_of(path) if row["kept"] in (True, "1")} - {""}
    except OSError as error:
        raise UserError(f"data.manifest {path} cannot be read ({error.strerror}); name one of igpt curate") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"data.manifest {path} is no manifest of igpt curate; name another") from error
    if not kept:
        raise UserError(f"data.manifest {path} keeps no file; curate the folder that is read here")
    return kept


def rows_of(path: Path) -> list[dict[str, Any]]:
    """One mapping an image, from JSON, JSON lines or CSV, by the suffix."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        return list(json.load(file))


def listed(stored: Stored, root: str) -> str:
    """An image as a manifest of this root calls it."""
    file = os.path.relpath(stored.file, root)
    return f"{file}:{stored.member}" if stored.member else file
