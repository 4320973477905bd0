"""`igpt check`: every image of any data module read once, in parallel, and what is broken listed."""

import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from igpt.data import (
    SPLITS,
    ImageDataModule,
    LabelledImages,
    Split,
    WatchedLoader,
    begin_worker,
    check_item,
    pixel_sha256,
)
from igpt.system import UserError

TOLD_EVERY = 10.0  # seconds between two lines about the progress; on a terminal one line is renewed
AT_ONCE = 16  # images that a process reads before it answers


class Seen(NamedTuple):
    """One image that was looked at: what is wrong with it, or an empty string, and a checksum of its pixels."""

    problem: str
    digest: str


def check(data: ImageDataModule, workers: int | None = None) -> None:
    """Read every image of any data module once, in parallel, and list what is broken.

    Prints a line for each image that cannot be read, how many files are left out, and how many pictures of one split
    are in another, too, equal at the resolution of the data. Ends with exit code 2 where something is broken.

    Args:
        data: whose images, such as ImageFolder, WebImages or a plug-in's class.
        workers: processes; as many as there are cores if left out.

    Raises:
        UserError: the data are missing, or some images are broken.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers < 0:
        raise UserError(f"--workers {workers} must be at least 0")
    data.keep_broken()
    data.prepare_data()
    started, total = time.monotonic(), sum(data.size(name) for name in SPLITS)
    broken = [f"{path}: {reason}" for path, reason in data.damaged]
    known: dict[str, Split] = {}
    repeated: dict[tuple[Split, Split], int] = {}
    progress = Progress(total)
    for split in SPLITS:
        fresh: dict[str, Split] = {}
        for seen in progress.counted(looked_at(data.images(split), split, data.resolution, workers)):
            if seen.problem:
                broken.append(seen.problem)
            elif seen.digest in known:
                pair = split, known[seen.digest]
                repeated[pair] = repeated.get(pair, 0) + 1
            else:
                fresh[seen.digest] = split
        known |= fresh
    for problem in broken:
        print(problem)
    for (split, earlier), count in repeated.items():
        side = data.resolution
        print(f"{count:,} of {data.size(split):,} {split} images equal one of {earlier} at {side}x{side} pixels")
    left_out = len(data.skipped) - len(data.damaged)
    also = f"; {left_out:,} files are left out" if left_out else ""
    print(f"{total:,} images read in {time.monotonic() - started:.1f} s: {len(broken):,} broken{also}")
    if broken:
        raise UserError(f"--data: {len(broken):,} of {total:,} images are broken, as listed; mend or remove them")


class Looks(Dataset[Seen]):
    """What is wrong with each image of a split, and what its pixels are."""

    def __init__(self, images: LabelledImages, split: Split, resolution: int) -> None:
        self.images, self.split, self.resolution = images, split, resolution

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Seen:
        try:
            item = self.images[index]
            check_item(item, self.resolution)
        except Exception as error:  # a plug-in's images may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            named = isinstance(error, UserError) and reason.startswith("image ")
            return Seen(reason if named else f"{self.split} image {index}: {reason}", "")
        return Seen("", pixel_sha256(item[0]))


def looked_at(images: LabelledImages, split: Split, resolution: int, workers: int) -> Iterator[Seen]:
    """Each image of a split, looked at in so many processes."""
    loader = WatchedLoader(
        Looks(images, split, resolution),
        batch_size=AT_ONCE,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
    )
    for batch in loader:
        yield from batch


class Progress:
    """A line about how many images have been read, on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.renewed = total, 0, sys.stderr.isatty()
        self.told = time.monotonic()

    def counted(self, seen: Iterator[Seen]) -> Iterator[Seen]:
        """The same, counted; a terminal's line is renewed twice a second."""
        for one in seen:
            self.done += 1
            if time.monotonic() - self.told > (0.5 if self.renewed else TOLD_EVERY):
                self.told = time.monotonic()
                self.tell()
            yield one

    def tell(self) -> None:
        """Write the line."""
        line = f"igpt check: {self.done:,} of {self.total:,} images"
        print(f"\r{line}" if self.renewed else line, end="" if self.renewed else "\n", file=sys.stderr, flush=True)
