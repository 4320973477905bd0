"""The order in which the pixels of an image form a sequence; the method allows any (paper, section 2.1: "raster")."""

from typing import Literal, get_args

import torch
from torch import Tensor

from igpt.system import UserError

Order = Literal["raster", "column", "spiral", "random", "subscale2", "subscale4"]
STRIDES = {"subscale2": 2, "subscale4": 4}  # distance of the pixels of a slice, in rows and in columns


def pixel_order(order: Order, shape: int | tuple[int, int]) -> Tensor:
    """Raster index of each element of the sequence, int64 `(rows * columns,)`.

    "raster" goes row by row; "column" column by column; "spiral" clockwise from the upper left corner inwards; "random"
    is one fixed permutation for each shape. "subscale2" interleaves 4 slices, and "subscale4" 16 (Menick & Kalchbrenner
    2018): slice (a, b) holds the pixels (s i + a, s j + b), and slices follow one another in raster order of (a, b), so
    that the first one is the picture at 1 / s of its side.

    Args:
        order: one of these.
        shape: rows and columns of the picture, or the side of a square.

    Raises:
        UserError: there is no such order, which a checkpoint's header may name, or `s` does not divide the side.
    """
    rows, columns = (shape, shape) if isinstance(shape, int) else shape
    grid = torch.arange(rows * columns).view(rows, columns)
    if order == "column":
        return grid.T.flatten()
    if order == "spiral":
        return _spiral(grid)
    if order == "random":
        seed = rows if rows == columns else rows << 32 | columns
        return torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed))
    if order in STRIDES:
        return _subscale(grid, STRIDES[order])
    if order == "raster":
        return grid.flatten()
    raise UserError(f"there is no pixel order {order!r}; choose {', '.join(get_args(Order))}")


def slices_of(order: Order) -> int | None:
    """How many slices an order interleaves; None where it has none."""
    return STRIDES[order] ** 2 if order in STRIDES else None


def with_slices(positions: Tensor, slices: Tensor | None) -> Tensor:
    """Position embeddings `(T, D)` with those of S equal parts of the sequence `(S, D)` added, where there are some."""
    return positions if slices is None else positions + slices.repeat_interleave(len(positions) // len(slices), 0)


def _subscale(grid: Tensor, stride: int) -> Tensor:
    rows, columns = grid.shape
    if rows % stride or columns % stride:
        raise UserError(
            f"order subscale{stride}: {stride} does not divide the sides of {rows}x{columns} pixels; choose a "
            "resolution that it divides, or another order"
        )
    tiles = grid.view(rows // stride, stride, columns // stride, stride)  # row in a slice, a, column in a slice, b
    return tiles.permute(1, 3, 0, 2).flatten()


def _spiral(grid: Tensor) -> Tensor:
    parts = []
    while grid.numel():
        parts.append(grid[0])
        grid = grid[1:].T.flip(0)  # turn what is left, so that its right edge becomes the top
    return torch.cat(parts)


def inverse_order(order: Tensor) -> Tensor:
    """Place of each raster pixel in the sequence: `sequence[inverse]` is in raster order."""
    return order.argsort()


def resize_positions(
    positions: Tensor, old_order: Tensor, new_order: Tensor, old: tuple[int, int], new: tuple[int, int]
) -> Tensor:
    """Position embeddings `(T, D)` for another resolution, `(T', D)`: bicubic over the image's two dimensions.

    Args:
        positions: of the sequence in `old_order`.
        old_order: raster index of each element of the sequence, int64 `(T,)`.
        new_order: the same of the new sequence, `(T',)`.
        old: rows and columns, T of them.
        new: rows and columns, T' of them.
    """
    raster = positions[inverse_order(old_order)].T.reshape(1, -1, *old)
    resized = torch.nn.functional.interpolate(raster, size=new, mode="bicubic", align_corners=False, antialias=True)
    return resized[0].flatten(1).T[new_order]
