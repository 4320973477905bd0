"""Blocks as independent pieces of work, which any engine may do: processes of this machine or a cluster's."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.curation.blocks import Array, Blocks, spans
from igpt.system import Progress, UserError

Ints = NDArray[np.int64]
Make = Callable[[Ints], tuple[Array, Any]]  # an array, and notes, of the images of some numbers


@dataclass(frozen=True)
class Task:
    """One block: its name, plain data that it follows from, and the numbers of its images."""

    name: str
    key: Any
    rows: Ints


@dataclass(frozen=True)
class Making:
    """What all blocks of a stage have in common; as its `make`, it can be pickled, and so can tasks."""

    blocks: Blocks
    make: Make

    def run(self, task: Task) -> int:
        """Make one block and write it; how many images it has. One thread, so that no bits depend on the machine."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self.blocks.get(task.name, task.key, lambda: self.make(task.rows))
        finally:
            torch.set_num_threads(threads)
        return len(task.rows)


Engine = Callable[[Making, Sequence[Task]], Iterator[int]]


def tasks_of(name: str, rows: Ints, size: int, key: Callable[[Ints], Any]) -> list[Task]:
    """The blocks of some images, so many in each."""
    parts = (rows[start:end] for start, end in spans(len(rows), size))
    return [Task(f"{name}-{number:05d}", key(part), part) for number, part in enumerate(parts)]


def done(
    tasks: Sequence[Task], prepare: Callable[[], Make], blocks: Blocks, engine: Engine, what: str
) -> list[tuple[Array, Any, str]]:
    """Of each task the array, mapped, its notes and its checksum; those on disk are not made again.

    Args:
        prepare: gives what makes a block; called only where one is missing.
        what: name of the images in the count on stderr.

    Raises:
        UserError: a worker wrote where this process does not see it.
    """
    missing = [task for task in tasks if not blocks.holds(task.name, task.key)]
    count, left = (sum(len(task.rows) for task in some) for some in (tasks, missing))
    with Progress(count, f"images: {what}") as progress:
        progress.add(count - left)
        for images in engine(Making(blocks, prepare()), missing) if missing else ():
            progress.add(images)
    lost = [task.name for task in missing if not blocks.holds(task.name, task.key)]
    if lost:
        raise UserError(f"--scheduler: workers have written {lost[0]} elsewhere; they must see {blocks.folder}, too")
    return [blocks.held(task.name) for task in tasks]


def checksum_of_rows(rows: Ints) -> str:
    """Tells one choice of images from another."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
