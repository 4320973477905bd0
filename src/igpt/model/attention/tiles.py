"""Attention in tiles: blocks of queries against the keys that any of them sees, so that the cost is of what is seen.

Shapes: B images, H heads, T positions, W width of a head; Q queries and K keys of a tile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igpt.model.attention.patterns import Pattern
from igpt.model.attention.places import Picture

ROWS = 64  # queries a tile: fewer have less to hide, and more take fewer calls
KEPT = 2**25  # scores of all images and heads above which softmaxes are computed again backwards and not kept


class Tile(NamedTuple):
    """A block of queries and the keys that they see, as places in the tiling's order.

    Args:
        queries: which, one after another.
        keys: which: a slice where they stand one after another, else their places.
        mask: 0 or -inf, added to the scores of the last of the keys, float32 `(Q, M)`; None where all are seen.
        offset: row and column offsets of query and key as one number, `(Q, K)`, where there is a bias by offsets.
    """

    queries: slice
    keys: slice | Tensor
    mask: Tensor | None
    offset: Tensor | None = None


@dataclass(frozen=True)
class Tiling:
    """How one pattern is computed: the tiles, and in which order of the positions they stand.

    Args:
        order: position at each place, int64 `(T,)`; None is the sequence's own order.
        area: scores that are computed for an image and head.
    """

    tiles: tuple[Tile, ...]
    order: Tensor | None
    area: int


def tiling_of(pattern: Pattern, picture: Picture, biased: bool) -> Tiling:
    """The cheapest tiling of a pattern, of those in the sequence's order, row by row and column by column."""
    (rows, columns), row, column = picture.shape, picture.row, picture.column
    orders = [None, (row * columns + column).argsort(), (column * rows + row).argsort()]
    return min((cut(pattern, picture, biased, order) for order in orders), key=lambda tiling: tiling.area)


def cut(pattern: Pattern, picture: Picture, biased: bool, order: Tensor | None, rows: int = ROWS) -> Tiling:
    """The tiling of so many queries a tile, in this order."""
    position = torch.arange(len(picture.row), device=picture.row.device) if order is None else order
    tiles, area = [], 0
    for start in range(0, len(position), rows):
        block = slice(start, min(start + rows, len(position)))
        queries = position[block, None]
        seen = picture.seen(pattern, queries, position)
        keys = seen.any(0).nonzero().flatten()
        offset = picture.offsets(queries, position[keys]) if biased else None
        tiles.append(Tile(block, in_a_row(keys), mask_of(~seen[:, keys]), offset))
        area += len(queries) * len(keys)
    return Tiling(tuple(tiles), order, area)


def in_a_row(keys: Tensor) -> slice | Tensor:
    """Ascending places as a slice, where they stand one after another."""
    low, high = int(keys[0]), int(keys[-1]) + 1
    return slice(low, high) if high - low == len(keys) else keys


def mask_of(hidden: Tensor) -> Tensor | None:
    """0 and -inf for the last columns of `hidden (Q, K)`, from the first on in which anything is hidden."""
    some = hidden.any(0)
    if not some.any():
        return None
    hidden = hidden[:, int(some.int().argmax()) :]
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -math.inf)


def attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, bias: Tensor | None) -> Tensor:
    """Attention `(B, H, T, W)`, the same as dense attention under the pattern's mask.

    Args:
        bias: added to the scores by the offset of query and key, `(H, offsets)`.
    """
    order = tiling.order
    if order is not None:
        q, k, v = (part.index_select(2, order) for part in (q, k, v))
    mixed: Tensor = TileAttention.apply(q, k, v, bias, tiling.tiles, q.shape[0] * q.shape[1] * tiling.area <= KEPT)
    return mixed if order is None else torch.empty_like(mixed).index_copy(2, order, mixed)


class TileAttention(torch.autograd.Function):
    """Scores, softmax and product with v, tile by tile, and a backward pass that adds into one gradient in place."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, tiles: Sequence[Tile], keep: bool
                ) -> Tensor:  # fmt: skip
        """All images' heads are one dimension of the products."""
        shape = q.shape
        q, k, v = (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        mixed, probs = torch.empty_like(q), []
        for tile in tiles:
            prob = probs_of(tile, q, k, bias)
            torch.bmm(prob, v[:, tile.keys], out=mixed[:, tile.queries])
            if keep:
                probs.append(prob)
        ctx.save_for_backward(q, k, v, bias, *probs)
        ctx.tiles, ctx.shape = tiles, shape
        return mixed.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Each tile adds to the gradients of the keys it sees."""
        q, k, v, bias, *probs = ctx.saved_tensors  # q is scaled
        grad = grad.flatten(0, 1)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_bias = None if bias is None else torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
        for index, tile in reversed(list(enumerate(ctx.tiles))):
            prob = probs[index] if probs else probs_of(tile, q, k, bias)
            keys, values, part = k[:, tile.keys], v[:, tile.keys], grad[:, tile.queries]
            add_product(grad_v, tile.keys, prob.transpose(1, 2), part)
            scores = part @ values.transpose(1, 2)
            torch._softmax_backward_data(scores, prob, -1, prob.dtype, grad_input=scores)
            if grad_bias is not None:
                by_head = scores.unflatten(0, (-1, len(grad_bias))).sum(0, dtype=torch.float32)
                index = tile.offset.flatten().expand(len(by_head), -1)
                grad_bias.scatter_add_(1, index, by_head.flatten(1))  # on a CPU many times as fast as `index_add_`
            torch.bmm(scores, keys, out=grad_q[:, tile.queries])
            add_product(grad_k, tile.keys, scores.transpose(1, 2), q[:, tile.queries])
        grads = [part.view(ctx.shape) for part in (grad_q.mul_(q.shape[-1] ** -0.5), grad_k, grad_v)]
        return *grads, None if grad_bias is None else grad_bias.to(bias.dtype), None, None


def probs_of(tile: Tile, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax of a tile's scores, `(B H, Q, K)`; q is scaled."""
    scores = q[:, tile.queries] @ k[:, tile.keys].transpose(1, 2)
    if bias is not None:
        scores.unflatten(0, (-1, len(bias))).add_(bias[:, tile.offset].to(scores.dtype))
    if tile.mask is not None:
        scores[:, :, -tile.mask.shape[1] :] += tile.mask.to(scores.dtype)
    return torch.softmax(scores, -1, out=scores)


def add_product(total: Tensor, at: slice | Tensor, left: Tensor, right: Tensor) -> None:
    """`total[:, at] += left @ right` in place."""
    if isinstance(at, slice):
        total[:, at].baddbmm_(left, right)
    else:
        total.index_add_(1, at, left @ right)
