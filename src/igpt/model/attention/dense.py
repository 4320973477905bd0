"""Scaled dot-product attention: the same numbers from whichever kernel is quickest where it runs.

Shapes: B images, H heads, S queries, T keys, W width of a head.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def attend_to_past_and_self(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one position `(B, H, 1, W)` to `T` past ones `(B, H, T, W)` and itself, without joining them."""
    q = q * q.shape[-1] ** -0.5
    scores, own = (keys * q).sum(-1, keepdim=True), (k * q).sum(-1, keepdim=True)  # (B, H, T, 1), (B, H, 1, 1)
    top = torch.maximum(scores.amax(2, keepdim=True), own)
    probs, prob = (scores - top).exp(), (own - top).exp()  # not normalised
    return ((probs * values).sum(2, keepdim=True) + prob * v) / (probs.sum(2, keepdim=True) + prob)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, causal: bool, rows: int = ROWS) -> Tensor:
    """Plain attention, `rows` queries at a time; where causal, a block leaves out the keys that lie after it."""
    joined = (part.flatten(0, 1) for part in (q, k, v))  # (B, H, S, W) -> (B H, S, W)
    mixed: Tensor = BlockAttention.apply(*joined, causal, rows).unflatten(0, q.shape[:2])
    return mixed


class BlockAttention(torch.autograd.Function):
    """The blocks, with a backward pass that adds into one gradient in place, instead of into one a block.

    All images' heads are one dimension, N; queries `(N, S, W)`, keys and values `(N, T, W)`. Keeps the softmaxes.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, rows: int) -> Tensor:
        """Scores, softmax and product with v, block by block."""
        q, mixed, probs = q * q.shape[-1] ** -0.5, torch.empty_like(q), []
        for start, stop, end in blocks_of(q.shape[1], k.shape[1], causal, rows):
            scores = q[:, start:stop] @ k[:, :end].transpose(1, 2)
            if causal:
                scores[:, :, start:] += scores.new_full((stop - start, stop - start), -math.inf).triu_(1)
            probs.append(torch.softmax(scores, -1, out=scores))
            torch.bmm(scores, v[:, :end], out=mixed[:, start:stop])
        ctx.save_for_backward(q, k, v, *probs)
        ctx.blocks = causal, rows
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """The last block first: it sees all keys, so that its part is written and the others' added."""
        q, k, v, *probs = ctx.saved_tensors  # q is scaled
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        blocks = list(blocks_of(q.shape[1], k.shape[1], *ctx.blocks))
        for (start, stop, end), prob in reversed(list(zip(blocks, probs, strict=True))):
            part, beta = grad[:, start:stop], 0 if stop == q.shape[1] else 1
            grad_v[:, :end].baddbmm_(prob.transpose(1, 2), part, beta=beta)
            scores = part @ v[:, :end].transpose(1, 2)
            torch._softmax_backward_data(scores, prob, -1, prob.dtype, grad_input=scores)
            torch.bmm(scores, k[:, :end], out=grad_q[:, start:stop])
            grad_k[:, :end].baddbmm_(scores.transpose(1, 2), q[:, start:stop], beta=beta)
        return grad_q.mul_(q.shape[-1] ** -0.5), grad_k, grad_v, None, None


def blocks_of(queries: int, keys: int, causal: bool, rows: int) -> Iterator[tuple[int, int, int]]:
    """First query, last query and last key of each block, the last ones not included."""
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        yield start, stop, stop if causal else keys
