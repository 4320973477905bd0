"""`igpt check`: reads every image of a data module once, in parallel, and lists what is broken."""

import os
import time
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset

from igpt.data import (
    SPLITS,
    ImageDataModule,
    LabelledImages,
    Resolution,
    Split,
    WatchedLoader,
    begin_worker,
    check_item,
    pixel_sha256,
)
from igpt.system import UserError, with_progress

AT_ONCE = 16  # images that a process reads before it answers


def check(data: ImageDataModule, workers: int | None = None) -> None:
    """Read every image of any data module once, in parallel, and list what is broken.

    Prints a line for each image that cannot be read, how many files are left out, and how many pictures of one split
    are in another, too, equal at the resolution of the data. Ends with exit code 2 where something is broken.

    Args:
        data: whose images, such as ImageFolder, WebImages or a plug-in's class.
        workers: processes; as many as there are cores if left out.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers < 0:
        raise UserError(f"--workers {workers} must be at least 0")
    data.keep_broken()
    data.prepare_data()
    started, total = time.monotonic(), sum(data.size(name) for name in SPLITS)
    broken = [f"{path}: {reason}" for path, reason in data.damaged]
    known: dict[str, Split] = {}
    repeated: Counter[tuple[Split, Split]] = Counter()
    for split, problem, digest in with_progress(looked_at(data, workers), total, "images"):
        if problem:
            broken.append(problem)
        elif (first := known.setdefault(digest, split)) != split:
            repeated[split, first] += 1
    for problem in broken:
        print(problem)
    for (split, earlier), count in repeated.items():
        rows, columns = data.shape
        print(f"{count:,} of {data.size(split):,} {split} images equal one of {earlier} at {rows}x{columns} pixels")
    left_out = len(data.skipped) - len(data.damaged)
    also = f"; {left_out:,} files are left out" if left_out else ""
    print(f"{total:,} images read in {time.monotonic() - started:.1f} s: {len(broken):,} broken{also}")
    if broken:
        raise UserError(f"--data: {len(broken):,} of {total:,} images are broken, as listed; mend or remove them")


class Looks(Dataset[tuple[str, str]]):
    """What is wrong with each image of a split (nothing: an empty string), and the checksum of its pixels."""

    def __init__(self, images: LabelledImages, split: Split, resolution: Resolution, stride: int) -> None:
        self.images, self.split, self.resolution, self.stride = images, split, resolution, stride

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[str, str]:
        try:
            item = self.images[index]
            check_item(item, self.resolution, self.stride)
        except Exception as error:  # a plug-in's images may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            named = isinstance(error, UserError) and reason.startswith("image ")
            return reason if named else f"{self.split} image {index}: {reason}", ""
        return "", pixel_sha256(item[0])


def looked_at(data: ImageDataModule, workers: int) -> Iterator[tuple[Split, str, str]]:
    """Split, problem and checksum of every image, read in so many processes."""
    for split in SPLITS:
        loader = WatchedLoader(
            Looks(data.images(split), split, data.resolution, data.token_stride),
            batch_size=AT_ONCE,
            num_workers=workers,
            collate_fn=list,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),
        )
        yield from ((split, *seen) for batch in loader for seen in batch)
