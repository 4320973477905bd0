"""A work folder of blocks: each is computed once, written whole, and made again when what it came from has changed."""

import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igpt.system import UserError, atomic_path, digest_of, replacing, sha256_of

Array = NDArray[Any]


class Blocks:
    """Arrays on disk, NAME.npy, each with NAME.json: what it came from, its checksum, and notes.

    Args:
        folder: made when the first block is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, key: Any, make: Callable[[], tuple[Array, Any]]) -> tuple[Array, Any, str]:
        """An array, mapped from the disk, its notes, and its checksum; made unless it is there from the same `key`.

        Args:
            key: plain data that the array follows from.
            make: gives array and notes, which are plain data.
        """
        if not self.holds(name, key):
            array, record = self._files(name)
            values, notes = make()
            self._write(array, values)
            known = {"key": digest_of(key), "bytes": os.path.getsize(array), "sha256": sha256_of(array), "notes": notes}
            with atomic_path(record) as path:
                path.write_text(json.dumps(known), encoding="utf-8")
        return self.held(name)

    def holds(self, name: str, key: Any) -> bool:
        """Whether an array is there from the same `key`."""
        array, record = self._files(name)
        known = read(record)
        whole = array.is_file() and known.get("bytes") == os.path.getsize(array)
        return bool(whole and known["key"] == digest_of(key))

    def held(self, name: str) -> tuple[Array, Any, str]:
        """An array that is there, its notes, and its checksum."""
        array, record = self._files(name)
        known = read(record)
        return load(array), known["notes"], known["sha256"]

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.npy", self.folder / f"{name}.json"

    def _write(self, target: Path, values: Array) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target, durable=True) as path, open(path, "wb") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"cannot write {target}: {why}; make room or choose another --out") from error


def read(record: Path) -> dict[str, Any]:
    """A block's record; empty where there is none that can be read."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and {"key", "bytes", "sha256", "notes"} <= known.keys() else {}


def load(array: Path) -> Array:
    """An array, mapped; empty ones cannot be."""
    with open(array, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    mapped: Array = np.load(array, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    return mapped


def let_go(array: Array) -> None:
    """Take the pages of a mapped array out of this process's memory; what is asked for again is mapped again.

    They stay in the system's cache while there is room. Without this a process that reads all blocks holds them all.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each block."""
    return ((start, min(start + size, count)) for start in range(0, count, size))
