"""Scaled dot-product attention: the same numbers from whichever kernel is quickest where it runs.

Shapes: B images, H heads, S queries, T keys, W width of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from igpt.model.attention.tiles import Tile, TileAttention

ROWS = 128  # queries a block: its scores still lie in the cache when the softmax and the product with v read them
HALF = (torch.bfloat16, torch.float16)
WITH_MASK = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN makes a new plan for every length: 40 ms each
LONG = 2048  # keys above which the kept softmaxes, T^2 / 2 a head, cost more memory than the speed is worth


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention of queries `(B, H, S, W)` to keys and values `(B, H, T, W)`; causal needs S = T.

    PyTorch's fused kernel is the rule. In bfloat16 on a CPU its backward is slow, so that there a few plain products
    take two thirds of its time (docs/performance.md; `benchmarks/bench_attention.py`).
    """
    if q.device.type == "cpu" and q.dtype in HALF and k.shape[2] <= LONG:
        return attend_in_blocks(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def attend_to_seen(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of one query `(B, H, 1, W)` to keys and values `(B, H, T, W)`; `mask (T,)` is added to the scores."""
    with sdpa_kernel(WITH_MASK):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_to_past_and_self(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None
) -> Tensor:
    """Attention of one position `(B, H, 1, W)` to `T` past ones `(B, H, T, W)` and itself, without joining them.

    Past ones that are `hidden`, bool `(T, 1)`, are not seen.
    """
    q = q * q.shape[-1] ** -0.5
    scores, own = (keys * q).sum(-1, keepdim=True), (k * q).sum(-1, keepdim=True)  # (B, H, T, 1), (B, H, 1, 1)
    scores = scores if hidden is None else scores.masked_fill(hidden, -math.inf)
    top = torch.maximum(scores.amax(2, keepdim=True), own)
    probs, prob = (scores - top).exp(), (own - top).exp()  # not normalised
    return ((probs * values).sum(2, keepdim=True) + prob * v) / (probs.sum(2, keepdim=True) + prob)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, causal: bool, rows: int = ROWS) -> Tensor:
    """Plain attention, `rows` queries at a time; where causal, a block leaves out the keys that lie after it."""
    mixed: Tensor = TileAttention.apply(q, k, v, None, tiles_of_all(q.shape[2], k.shape[2], causal, rows), True)
    return mixed


def tiles_of_all(queries: int, keys: int, causal: bool, rows: int) -> tuple[Tile, ...]:
    """Tiles of dense attention; where causal, a tile leaves out the keys that lie after it."""
    tiles = []
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        mask = torch.full((stop - start, stop - start), -math.inf).triu_(1) if causal else None
        tiles.append(Tile(slice(start, stop), slice(0, stop if causal else keys), mask))
    return tuple(tiles)
