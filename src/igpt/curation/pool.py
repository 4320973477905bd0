"""`Pool`: all images of a data module by one running number, with names, and what tells one block's content."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from igpt.data import SPLITS, ChosenImages, ImageDataModule, LabelledImages, Split
from igpt.system import UserError, digest_of

RUNNING = ("num_workers", "batch_size", "report")  # arguments that leave the images as they are


class Pool(Dataset[tuple[Tensor, str]]):
    """Images of some splits of a data module, one after another; those that cannot be read are grey, with a reason.

    Args:
        data: prepared here; broken files are not looked for beforehand, so that each is read once.
        splits: which of its splits.
    """

    def __init__(self, data: ImageDataModule, splits: Sequence[Split] = SPLITS) -> None:
        data.check_pictures()
        data.split = replace(data.split, fold_validation=False)
        data.keep_broken()
        data.prepare_data()
        self.parts: list[tuple[ImageDataModule, Split, LabelledImages]] = [
            (data, name, data.images(name)) for name in splits
        ]

    @classmethod
    def joined(cls, pools: Sequence["Pool"]) -> "Pool":
        """The images of several pools, one after another."""
        whole = object.__new__(cls)
        whole.parts = [part for pool in pools for part in pool.parts]
        return whole

    def few(self, count: int) -> "Pool":
        """At most so many of the images, evenly spaced."""
        whole = object.__new__(type(self))
        chosen = [self.where(index) for index in np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)]
        whole.parts = [
            (data, split, ChosenImages(images, [place for part, place in chosen if part == number]))
            for number, (data, split, images) in enumerate(self.parts)
        ]
        return whole

    @cached_property
    def starts(self) -> list[int]:
        """The number of the first image of each part, and that of all images."""
        return [0, *accumulate(len(images) for _, _, images in self.parts)]

    def where(self, index: int) -> tuple[int, int]:
        """The part of an image, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        part, place = self.where(index)
        try:
            return self.parts[part][2][place][0], ""
        except (UserError, OSError) as error:
            return torch.full((3, *self.parts[part][0].shape), 128, dtype=torch.uint8), " ".join(str(error).split())

    def split_of(self, index: int) -> tuple[Split, int]:
        """The split of an image, and its number there."""
        part, place = self.where(index)
        return self.parts[part][1], place

    def file(self, index: int) -> str:
        """The file of an image below the data's root, TAR:MEMBER inside a tar; an empty string without files."""
        stored = self._stored(index)
        if stored is None:
            return ""
        root = str(vars(self.parts[self.where(index)[0]][0]).get("root", ""))
        file = os.path.relpath(stored.file, root) if root else stored.file
        return f"{file}:{stored.member}" if stored.member else file

    def name(self, index: int) -> str:
        """What reasons call an image."""
        split, place = self.split_of(index)
        return self.file(index) or f"{split} {place}"

    def read(self, indices: Sequence[int]) -> tuple[Tensor, list[str]]:
        """Images uint8 `(B, 3, R, R)`, and why each cannot be read, or an empty string."""
        images, reasons = zip(*(self[index] for index in indices), strict=True)
        return torch.stack(images), list(reasons)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Changes with the files of these images: their names, sizes and times; without files with the data."""
        files = [self._stored(index) for index in indices]
        known = []
        for data in {id(part[0]): part[0] for part in self.parts}.values():
            spec = data.spec()
            options = {name: value for name, value in spec["init_args"].items() if name not in RUNNING}
            known.append([data.identity() if None in files else {}, spec["class_path"], options])
        return digest_of([known, [self.split_of(index) for index in indices], *map(stamp, files)])

    def _stored(self, index: int) -> Any:
        part, place = self.where(index)
        images: Any = self.parts[part][2]
        while isinstance(images, ChosenImages):
            images, place = images.base, int(images.indices[place])
        stored = vars(images).get("stored")
        one = stored[place] if stored is not None else None
        return one if hasattr(one, "file") and hasattr(one, "member") else None


def stamp(stored: Any) -> list[Any]:
    """Name, place, size and time of a file, as far as they can be had."""
    if stored is None:
        return []
    try:
        status = os.stat(stored.file)
    except OSError:
        return [ascii(stored.file)]
    return [ascii(stored.file), ascii(stored.member), stored.offset, stored.size, status.st_size, status.st_mtime_ns]
