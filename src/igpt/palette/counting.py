"""A histogram of all 2^24 colours, in memory that does not grow with the number of images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RGB_CODES = 1 << 24
CHUNK = 1 << 18
MAX_POINTS = 1 << 19  # more different colours than this are merged in cells before clustering


class ColorCounts:
    """Counts of 24-bit colours, added batch by batch; 64 MiB, and 128 from 2^32 pixels on."""

    def __init__(self) -> None:
        self.counts: NDArray[np.uint32] | NDArray[np.int64] = np.zeros(RGB_CODES, dtype=np.uint32)
        self.pixels = 0

    def add(self, images: Tensor) -> None:
        """Count the pixels of images uint8 `(B, 3, H, W)`."""
        packed = pack(images)
        codes, counts = torch.unique(packed, return_counts=True)
        self.pixels += packed.numel()
        if self.pixels >= 1 << 32 and self.counts.dtype == np.uint32:
            self.counts = self.counts.astype(np.int64)
        self.counts[codes.numpy()] += counts.numpy().astype(self.counts.dtype)

    def unique(self) -> int:
        """Number of different colours."""
        return int(np.count_nonzero(self.counts))

    def chunks(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The colours that occur, float32 `(N, 3)` in 0..255, and their counts `(N,)`, some at a time."""
        for start in range(0, RGB_CODES, CHUNK):
            part = self.counts[start : start + CHUNK]
            codes = np.flatnonzero(part)
            if len(codes):
                yield unpack(codes + start), part[codes].astype(np.int64)

    def points(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What to cluster: colours `(N, 3)` and weights `(N,)`, N at most 2^19.

        Of more colours, those of each cell of 2 x 2 x 2, if need be 4 x 4 x 4, are replaced by their weighted mean.
        """
        if self.unique() <= MAX_POINTS:
            parts = list(self.chunks())
            return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]).astype(np.float32)
        for side in (2, 4):
            points, weights = merge_cells(self.counts, side)
            if len(points) <= MAX_POINTS:
                break
        return points, weights


def merge_cells(counts: NDArray[np.generic], side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted means `(N, 3)` and weights `(N,)` of the occupied cells of side^3 colours; a layer of red at a time."""
    layers = counts.reshape(256 // side, side, 256, 256)
    cells = 256 // side
    level = np.arange(256, dtype=np.float64)
    points, weights = [], []
    for layer in range(cells):
        block = layers[layer].astype(np.float64)  # (side, 256, 256)
        red = level[layer * side : (layer + 1) * side]

        def per_cell(values: NDArray[np.float64]) -> NDArray[np.float64]:
            sums: NDArray[np.float64] = values.reshape(side, cells, side, cells, side).sum(axis=(0, 2, 4)).ravel()
            return sums

        mass = per_cell(block)
        occupied = mass > 0
        sums = [per_cell(block * axis) for axis in (red[:, None, None], level[None, :, None], level[None, None, :])]
        points.append(np.stack([s[occupied] / mass[occupied] for s in sums], axis=1).astype(np.float32))
        weights.append(mass[occupied].astype(np.float32))
    return np.concatenate(points), np.concatenate(weights)


def pack(images: Tensor) -> Tensor:
    """Images uint8 `(B, 3, H, W)` to 24-bit codes int32 `(B, H, W)`."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return (red << 16) | (green << 8) | blue


def unpack(codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """24-bit codes `(N,)` to colours float32 `(N, 3)` in 0..255."""
    return np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=1).astype(np.float32)
