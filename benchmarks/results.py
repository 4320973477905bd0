"""Rows of results: what they hold, what they are bounded by, and the file that they are kept in."""

import datetime
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import Measured

from igpt.system import atomic_path

LIBRARIES = ("torch", "lightning", "numpy", "transformers", "x-transformers", "scikit-learn", "pillow")

Row = dict[str, Any]


def row(
    work: str,
    unit: str,
    ours: Measured,
    peer: Measured,
    *,
    at_least: float | None = None,
    bound: dict[str, Any] | None = None,
    note: str = "",
) -> Row:
    """One comparison; the ratio is of median rates, its spread that of the pairs of rounds that followed each other."""
    pairs = [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]
    return {
        "work": work,
        "side": ours.name,
        "peer": peer.name,
        "unit": unit,
        "ours": ours.rate,
        "peer_rate": peer.rate,
        "spreads": {"ours": extent(ours.rates), "peer": extent(peer.rates), "ratio": extent(pairs)},
        "ratio": ours.rate / peer.rate,
        "at_least": at_least,
        "bound": bound,
        "peak_bytes": {"ours": ours.peak_bytes, "peer": peer.peak_bytes},
        "rounds": len(ours.rates),
        "threads": ours.threads,
        "note": note,
        **circumstances(),
    }


def extent(values: Iterable[float]) -> list[float]:
    """Least and most."""
    found = list(values)
    return [min(found), max(found)]


def bound_of(kind: str, per_unit: float, rate: float, peak: float, device: str) -> dict[str, Any]:
    """How much of the measured peak the work uses.

    Args:
        kind: "operations" or "bytes".
        per_unit: how many of them one unit of the work needs.
        rate: units per second.
        peak: operations or bytes per second that were measured in the same run.
    """
    return {"kind": kind, "per_unit": per_unit, "peak": peak, "fraction": per_unit * rate / peak, "device": device}


def circumstances() -> dict[str, Any]:
    """Date, machine and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": round(memory_bytes() / 2**30, 1)},
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in LIBRARIES}},
    }


def cpu_model() -> str:
    """As the system names it; sellers of virtual machines often leave the number out."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def version_of(name: str) -> str | None:
    """Version of an installed library."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read(path: Path) -> dict[str, Any]:
    """Everything that was kept; "rows" are comparisons, "growth" single runs, "peaks" the machine's, "gpu" its rows."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    return {"rows": {}, "growth": {}, "peaks": {}, "gpu": {}, **kept}


def save(path: Path, part: str, found: dict[str, Any]) -> None:
    """Merge into one part of the file; what has other keys stays."""
    kept = read(path)
    kept[part] |= found
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def save_rows(path: Path, rows: list[Row], peaks: dict[str, Any] | None = None) -> None:
    """Keep rows under their work and sides, and show them."""
    save(path, "rows", {f"{row['work']} | {row['side']} | {row['peer']}": row for row in rows})
    if peaks is not None:
        save(path, "peaks", {peaks["device"]: {**peaks, **circumstances()}})
    for one in rows:
        print(line_of(one), flush=True)


def line_of(row: Row) -> str:
    """A row for the terminal."""
    low, high = row["spreads"]["ratio"]
    asked = "" if row["at_least"] is None else f", at least {row['at_least']:g} asked for"
    note = f"; {row['note']}" if row["note"] else ""
    return (
        f"{row['work']}: {row['side']} {row['ours']:.4g} {row['unit']}/s, {row['peer']} {row['peer_rate']:.4g}; "
        f"{row['ratio']:.2f} x ({low:.2f} to {high:.2f}{asked}){note}"
    )
