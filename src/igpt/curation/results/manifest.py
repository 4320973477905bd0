"""The manifest: one row an image, as JSON, JSON lines or CSV by its suffix."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from igpt.curation.curating import DUPLICATE, FAR, KEPT, OVERLAP, Curation
from igpt.curation.pool import Pool
from igpt.system import UserError

SUFFIXES = (".json", ".jsonl", ".csv")
DIGITS = 5  # of distances


def check_name(out: Path) -> None:
    """Raise a UserError unless a manifest can have this name."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"--out {out} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def rows(
    found: Curation, pool: Pool, reasons: dict[int, str], reference: Pool | None, tests: Pool | None
) -> Iterator[dict[str, Any]]:
    """One mapping an image, in the order of the data."""
    for index, state in enumerate(found.state.tolist()):
        split, place = pool.split_of(index)
        partner, near = int(found.partner[index]), int(found.reference[index])
        why = {KEPT: "", FAR: "far from reference"}.get(state, f"unreadable: {reasons.get(index, '')}")
        if state == DUPLICATE:
            why = f"duplicate of {pool.name(partner)}"
        if state == OVERLAP and tests is not None:
            why = f"overlaps test image {tests.name(partner)}"
        yield {
            "file": pool.file(index),
            "split": split,
            "index": place,
            "kept": state == KEPT,
            "reason": why,
            "difference": number(float(found.difference[index])),
            "distance": number(float(found.distance[index])),
            "nearest": reference.name(near) if reference is not None and near >= 0 else "",
        }


def number(value: float) -> float | None:
    """A distance as it is written; None where there is none."""
    return round(value, DIGITS) if math.isfinite(value) else None


def write(lines: Iterator[dict[str, Any]], target: Path) -> None:
    """Write rows in the format of the suffix; names that are no text come as ASCII escapes in JSON, as bytes in CSV."""
    with open(target, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        if target.suffix == ".csv":
            table: csv.DictWriter[str] | None = None
            for line in lines:
                if table is None:
                    table = csv.DictWriter(file, list(line), lineterminator="\n")
                    table.writeheader()
                table.writerow(line | {"kept": int(line["kept"])})
        elif target.suffix == ".jsonl":
            file.writelines(json.dumps(line) + "\n" for line in lines)
        else:
            file.write("[")
            file.writelines(("\n" if number == 0 else ",\n") + json.dumps(line) for number, line in enumerate(lines))
            file.write("\n]\n")


def is_manifest(file: Path) -> bool:
    """Whether a file begins as a manifest does."""
    with open(file, encoding="utf-8", errors="surrogateescape") as text:
        start = text.read(80)
    return start.startswith(('[\n{"file": ', '{"file": ', "file,split,index,kept,reason"))
