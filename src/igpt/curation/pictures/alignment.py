"""The difference of two pictures once they are aligned: cheap bounds first, all pixels for the few that are left.

Planes are `(3, S, S, B)`: with pairs last, every operation runs along them, which takes a fifth of the time.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.curation.pictures.thumbnails import SIDE, WEIGHTED

NOISE = 1.0  # squared levels that rounding and recompression add to a picture without edges
ZOOMS = (0.95, 0.975)  # sides of the parts that are laid over the whole other picture
COARSELY = 2.5  # as the threshold, of coarse pictures that are not aligned: beyond this no alignment helps
AT_ONCE = 128
ROUNDING = 1e-2  # what it may add to a bound, at most


def differences(first: Tensor, second: Tensor, limit: float = math.inf) -> Tensor:
    """How much of each pair of thumbnails, uint8 `(B, 3, 16, 16)`, is not the same picture, `(B,)`; 0 for equal ones.

    The mean squared residual at the best of several alignments (either picture may be a crop, of 5 % less, of the
    other) over the smaller squared slope of the two: what is left of a copy that was scaled or moved by a part of a
    pixel grows with its slopes, while smooth pictures must agree to a few levels. Unrelated pictures are at about 3 or
    more.

    Args:
        limit: differences above it need not be exact, only above it, which spares most of the work.
    """

    def each(step: Callable[[Tensor, Tensor], Tensor], rows: Tensor) -> Tensor:
        parts = [step(planes(first[some]), planes(second[some])) for some in rows.split(AT_ONCE)]
        return torch.cat(parts, dim=-1)

    best, allowed = each(unaligned, torch.arange(len(first)))
    near = (best <= COARSELY * allowed).nonzero()[:, 0]
    best[near], least = each(bounded, near)
    left = near[least <= limit * (1 + ROUNDING) * allowed[near]]
    best[left] = torch.minimum(best[left], each(best_aligned, left))
    found: Tensor = best / allowed
    return found


def reach(thumbs: Tensor) -> Tensor:
    """The squared distance of `coarse` pictures `(B,)` beyond which another is surely not the same picture as these."""
    at_once = [COARSELY * (slope(planes(some)) + NOISE) for some in thumbs.split(AT_ONCE)]
    return torch.cat(at_once) * 3 * (SIDE // 2) ** 2 * (1 + ROUNDING)


def unaligned(one: Tensor, other: Tensor) -> Tensor:
    """The residual of pairs at half the size, no more than that of all pixels, and what is allowed, `(2, B)`."""
    allowed = torch.minimum(slope(one), slope(other)) + NOISE
    return torch.stack([residual(halved(one), halved(other)), allowed])


def bounded(one: Tensor, other: Tensor) -> Tensor:
    """The residual of pairs that are not aligned, and what that of no alignment is below, by 4x4 means; `(2, B)`."""
    small, less = halved(halved(one)), halved(halved(other))
    return torch.stack([residual(one, other), torch.minimum(aligned(one, less), aligned(other, small))])


def best_aligned(one: Tensor, other: Tensor) -> Tensor:
    """The least residual of either picture and a part of the other, `(B,)`."""
    return torch.minimum(aligned(one, other), aligned(other, one))


def planes(thumbs: Tensor) -> Tensor:
    """Brightness and two colour differences of thumbnails uint8 `(B, 3, S, S)`, as float `(3, S, S, B)`."""
    levels = thumbs.flatten(1).T.float()
    return (WEIGHTED @ levels.reshape(3, levels.numel() // 3)).view(3, SIDE, SIDE, len(thumbs))


def aligned(whole: Tensor, part: Tensor) -> Tensor:
    """The least residual of each picture `part` `(3, P, P, B)` and a part of `whole` `(3, S, S, B)`; `(B,)`.

    Args:
        part: all pixels, P = S; or means of blocks, which are compared with those of the parts. The mean of squares is
            no less than that of the squared means, so that the residual of the pixels is no less, either.
    """
    side, count = part.shape[2:]
    lines = windows(side)
    zooms, length = lines.shape[:2]
    across = (lines.flatten(0, 1) @ whole).view(3, SIDE, zooms, length * count)
    parts = (lines @ across.transpose(1, 2)).view(3, zooms, length // side, side, length // side, side, count)
    apart = parts - part[:, None, None, :, None]
    least: Tensor = apart.square_().mean((0, 3, 5)).flatten(0, 2).amin(0)
    return least


@cache
def windows(side: int) -> Tensor:
    """The parts that are compared, for each zoom, along one axis: linear maps of its pixels `(Z, K * side, S)`.

    A part has one of K places across and one down, so that two products bring it to the size of the whole.
    """
    points = torch.eye(SIDE)[:, None, None].expand(-1, 1, SIDE, -1)  # rows all alike: only the place across counts
    maps = [[zoomed(points, zoom, shift)[:, 0, 0] for shift in (zoom - 1, 0.0, 1 - zoom)] for zoom in ZOOMS]
    lines = torch.stack([torch.stack(some) for some in maps]).mT  # (Z, K, S of the part, S of the whole)
    found: Tensor = lines.unflatten(2, (side, -1)).mean(3).flatten(1, 2)
    return found


def zoomed(pictures: Tensor, zoom: float, right: float) -> Tensor:
    """A part of each picture `(B, C, S, S)`, brought to the size of the whole.

    Args:
        zoom: side of the part, as a share.
        right: shift of its middle, in halves of a side.
    """
    turn = torch.tensor([[zoom, 0.0, right], [0.0, zoom, 0.0]]).expand(len(pictures), 2, 3)
    where = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, where, padding_mode="border", align_corners=False)


def halved(pixels: Tensor) -> Tensor:
    """Means of 2x2 pixels, `(3, S / 2, S / 2, B)`."""
    rows = pixels[:, ::2] + pixels[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


def residual(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of each pair, `(B,)`."""
    return (one - other).square_().mean((0, 1, 2))


def slope(pixels: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, across and down, `(B,)`."""
    across, down = pixels[:, :, 1:] - pixels[:, :, :-1], pixels[:, 1:] - pixels[:, :-1]
    return (across.square_().mean((0, 1, 2)) + down.square_().mean((0, 1, 2))) / 2
