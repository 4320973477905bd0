"""Positions as offsets between query and key: a learned bias of scores, or rotated queries and keys.

Shapes: B images, H heads, T positions, W width of a head, R rows and C columns of the picture.
"""

import math

import torch
from torch import Tensor, nn

EXACT, FAR, BUCKETS = 8, 128, 16  # offsets below EXACT have a bucket each, those up to FAR share the rest, as in T5
BASE = 100.0  # of the frequencies: the slowest turns once in a few hundred pixels


class RelativeBias(nn.Module):
    """A learned number for each offset of rows and of columns and each head, whose sum is added to the score.

    Bello et al. 2019 let it depend on the query, too; this is the part that does not. Zero at first.

    Args:
        buckets: offsets share buckets that grow with the distance (T5, Raffel et al. 2020), so that it means the same
            at any size of pictures; else each offset has a number of its own.
    """

    def __init__(self, heads: int, shape: tuple[int, int], buckets: bool) -> None:
        super().__init__()
        self.shape, self.buckets = shape, buckets
        sizes = [2 * BUCKETS - 1 if buckets else 2 * side - 1 for side in shape]
        self.rows, self.columns = (nn.Parameter(torch.zeros(heads, size)) for size in sizes)

    def forward(self) -> Tensor:
        """The bias by the offset of query and key (`Picture.offsets`), `(H, (2 R - 1) (2 C - 1))`."""
        rows, columns = (self.by_offset(*one) for one in zip((self.rows, self.columns), self.shape, strict=True))
        return (rows[:, :, None] + columns[:, None, :]).flatten(1)

    def by_offset(self, table: Tensor, side: int) -> Tensor:
        """A table's numbers by the offset, `(H, 2 side - 1)`."""
        return table[:, bucket_of(torch.arange(1 - side, side, device=table.device))] if self.buckets else table


def bucket_of(offsets: Tensor) -> Tensor:
    """Bucket of each offset, from 0 to `2 BUCKETS - 2`: near ones have one each, far ones by their logarithm."""
    apart = offsets.abs().clamp(max=FAR - 1)
    far = torch.log(apart.clamp(min=EXACT) / EXACT) / math.log(FAR / EXACT) * (BUCKETS - EXACT)
    bucket = torch.where(apart < EXACT, apart, (EXACT + far.long()).clamp(max=BUCKETS - 1))
    return BUCKETS - 1 + offsets.sign() * bucket


def resized_bias(table: Tensor, size: int) -> Tensor:
    """A table `(H, 2 n - 1)` for offsets in a picture of another side; offsets not met before get the farthest's."""
    offsets = torch.arange(size) - size // 2 + table.shape[1] // 2
    return table[:, offsets.clamp(0, table.shape[1] - 1)]


class Rope(nn.Module):
    """Rotary embedding in two dimensions: half of a head's width turns with the row, half with the column.

    Scores then depend on offsets alone (Su et al. 2021), at any size of pictures.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, row: Tensor, column: Tensor) -> None:
        super().__init__()
        frequencies = BASE ** -(torch.arange(width // 4, device=row.device) / (width // 4))
        angles = torch.cat([place[:, None] * frequencies for place in (row, column)], 1)  # (T, W / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, position: Tensor | slice) -> Tensor:
        """Queries or keys `(..., S, W)` at these positions, rotated."""
        cos, sin = self.cos[position], self.sin[position]
        one, other = x.float().chunk(2, dim=-1)
        return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).to(x.dtype)
