"""The order in which the pixels of an image form a sequence; the method allows any (paper, section 2.1: "raster")."""

from typing import Literal

import torch
from torch import Tensor

from igpt.system import UserError

Order = Literal["raster", "column", "spiral", "random"]


def pixel_order(order: Order, shape: int | tuple[int, int]) -> Tensor:
    """Raster index of each element of the sequence, int64 `(rows * columns,)`.

    "raster" goes row by row; "column" column by column; "spiral" clockwise from the upper left corner inwards; "random"
    is one fixed permutation for each shape.

    Args:
        order: one of these.
        shape: rows and columns of the picture, or the side of a square.

    Raises:
        UserError: there is no such order, which a checkpoint's header may name.
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
    if order == "raster":
        return grid.flatten()
    raise UserError(f"there is no pixel order {order!r}; choose raster, column, spiral or random")


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
