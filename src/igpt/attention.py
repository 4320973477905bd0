"""Scaled dot-product attention: the same numbers from whichever kernel is quickest where it runs.

Shapes: B images, H heads, S queries, T keys, W width of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 128  # queries a block: its scores still lie in the cache when the softmax and the product with v read them
SHORT = 128  # keys up to which blocks win in float32, too
LONG = 2048  # keys above which the kept softmaxes, T^2 / 2 a head, cost more memory than the speed is worth


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention of queries `(B, H, S, W)` to keys and values `(B, H, T, W)`; causal needs S = T.

    PyTorch's fused kernel is the rule. On a CPU it is slow for heads as narrow as ours and has a slow backward in
    bfloat16, so that there a few plain products take two thirds of its time (docs/performance.md).
    """
    tokens = k.shape[2]
    if q.device.type == "cpu" and (tokens <= SHORT or (tokens <= LONG and q.dtype != torch.float32)):
        return attend_in_blocks(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, causal: bool, rows: int = ROWS) -> Tensor:
    """Plain attention, `rows` queries at a time; where causal, a block leaves out the keys that lie after it."""
    q, k, v, heads = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1), q.shape[:2]
    scale, blocks = 1 / math.sqrt(q.shape[-1]), []
    for start in range(0, q.shape[1], rows):
        queries = q[:, start : start + rows]
        end = start + queries.shape[1] if causal else k.shape[2]
        hidden = queries.new_zeros(queries.shape[1], end)
        if causal:
            hidden[:, start:] = queries.new_full((end - start, end - start), -math.inf).triu(1)
        scores = torch.baddbmm(hidden, queries, k[:, :, :end], alpha=scale)
        blocks.append(scores.softmax(-1).to(v.dtype) @ v[:, :end])
    mixed: Tensor = torch.cat(blocks, dim=1).unflatten(0, heads)
    return mixed
