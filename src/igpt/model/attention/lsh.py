"""Attention by locality-sensitive hashing (Reformer, Kitaev et al. 2020), exactly causal.

A vector is both query and key; random rotations put similar vectors into the same bucket, and a position attends to
positions of its own bucket. Several rounds of hashing make it unlikely that two similar vectors never meet.

The published chunking is not causal: it sorts positions by bucket and cuts the sorted row into chunks, so that the
chunk which a position falls into depends on how many later positions lie in lower buckets. Here every bucket begins a
chunk of its own. A position's place is then its rank in its bucket, the number of earlier positions there, which
nothing later can change; it attends to those before it in its own chunk of `chunk` ranks and in the whole chunk before,
both of its own bucket. The last chunk of a bucket may be partly empty, so that time and memory grow with
`(T + buckets * chunk) * chunk * rounds`, and not with T^2.

Shapes: B images, H heads, R rounds, T positions, W width of a head, K buckets, C slots a chunk, N chunks; G = B * H.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igpt.model.attention.patterns import LSH
from igpt.model.kernels import rms_norm

KEY_EPS = 1e-6  # as published
OWN = -1e5  # added to the score of a position with itself: as published, it counts only where nothing else is seen


def rotations(width: int, buckets: int, rounds: int, seed: int, heads: int) -> Tensor:
    """Random directions `(H, W, R, K / 2)`, float32, the same for the same seed: each layer has a seed of its own."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(heads, width, rounds, buckets // 2, generator=rng, device="cpu")  # also within another's context


@torch.no_grad()
def buckets_of(qk: Tensor, rotations: Tensor) -> Tensor:
    """Bucket of each position in each round, int64 `(B, H, R, T)`: the largest of `[x r; -x r]`, for `qk (B, H, T, W)`.

    Computed in float32 or wider whatever autocast says, so that training and decoding put a vector in the same bucket.
    """
    x = wide(qk)
    with torch.autocast(qk.device.type, enabled=False):
        rotated = torch.einsum("bhtw,hwrk->bhrtk", x, rotations.to(x.dtype))
    return torch.cat([rotated, -rotated], -1).argmax(-1)


def keys_of(qk: Tensor) -> Tensor:
    """The queries as keys: of root mean square `1 / sqrt(W)`, which also holds what scores are scaled by."""
    x, width = wide(qk), qk.shape[-1]
    return rms_norm(x, x.new_full((width,), width**-0.5), KEY_EPS).to(qk.dtype)


def lsh_attend(qk: Tensor, v: Tensor, rotations: Tensor, chunk: int) -> Tensor:
    """Causal attention of all positions, `(B, H, T, W)`, for shared queries and keys `qk` and values `v` of that shape.

    What a position gets does not change in one bit when later positions change. `rotations` are this layer's, and
    `chunk` is the number of ranks a chunk.
    """
    slots, held, first = chunked(buckets_of(qk, rotations), 2 * rotations.shape[-1], min(chunk, qk.shape[2]))
    joined = (part.flatten(0, 1) for part in (qk, keys_of(qk), v, slots, held, first))  # (B, H, ...) -> (G, ...)
    mixed: Tensor = ChunkAttention.apply(*joined).unflatten(0, qk.shape[:2])
    return mixed


def lsh_step(qk: Tensor, k: Tensor, v: Tensor, buckets: Tensor, position: Tensor, chunk: int) -> Tensor:
    """One row of `lsh_attend`, `(B, H, 1, W)`, in decoding; its time grows with T.

    A key's weight is the exponential of its score times the number of rounds that see it, which is what combining the
    rounds by the logsumexp of their scores amounts to.

    Args:
        qk: of the position, `(B, H, 1, W)`.
        k: `keys_of` all positions so far, this one included, `(B, H, T, W)`; what lies behind it is not looked at.
        v: their values.
        buckets: theirs, `(B, H, R, T)`.
        position: int64 `(1,)`, a tensor: the device is not waited for.
        chunk: ranks a chunk.
    """
    places = torch.arange(k.shape[2], device=k.device)
    same = (buckets == buckets.index_select(-1, position)) & (places <= position)
    ranks = same.cumsum(-1) - 1  # (B, H, R, T)
    least = (ranks.index_select(-1, position) // chunk - 1) * chunk
    scores = wide(qk @ k.mT) + (places == position) * OWN  # (B, H, 1, T)
    scores += (same & (ranks >= least)).sum(2, keepdim=True, dtype=scores.dtype).log()  # -inf where no round sees it
    return scores.softmax(-1).to(v.dtype) @ v


class HashedCache:
    """KV cache of one layer whose positions are hashed: keys, values and buckets of all of them."""

    def __init__(self, pattern: LSH, rotations: Tensor, like: Tensor, batch: int, heads: int, length: int) -> None:
        shape = (batch, heads, length, rotations.shape[1])
        self.chunk, self.rotations = pattern.chunk, rotations
        self.k, self.v = like.new_zeros(shape), like.new_zeros(shape)
        self.buckets = torch.zeros(batch, heads, pattern.rounds, length, dtype=torch.int64, device=like.device)

    def fill(self, qk: Tensor, v: Tensor) -> None:
        """Keep the first positions' vectors and values `(B, H, S, W)`."""
        self._keep(torch.arange(qk.shape[2], device=qk.device), qk, v)

    def attend(self, q: Tensor, new: Tensor, position: Tensor) -> Tensor:
        """Keep the new vector `q (B, H, 1, W)` and value `(1, B, H, 1, W)` and attend: `(B, H, 1, W)`."""
        self._keep(position, q, new[0])
        return lsh_step(q, self.k, self.v, self.buckets, position, self.chunk)

    def _keep(self, positions: Tensor, qk: Tensor, v: Tensor) -> None:
        self.k.index_copy_(2, positions, keys_of(qk).to(self.k.dtype))
        self.v.index_copy_(2, positions, v.to(self.v.dtype))
        self.buckets.index_copy_(3, positions, buckets_of(qk, self.rotations))


def chunked(buckets: Tensor, count: int, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which slots positions lie in when every bucket begins a chunk.

    Args:
        buckets: int64 `(B, H, R, T)`, each below `count`, K.
        chunk: slots a chunk, C, at most T.

    Returns:
        The slot of each position, int64 `(B, H, R, T)`; the position in each slot, int64 `(B, H, R, N, C)`, 0 where it
        is empty; and which chunks are the first of their bucket, bool `(B, H, R, N)`. N = T // C + min(K, T) is enough.
    """
    lead, length = buckets.shape[:-1], buckets.shape[-1]
    ordered, order = buckets.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(count, device=buckets.device).repeat(*lead, 1))
    chunks = (starts.diff(append=starts.new_full((*lead, 1), length)) + chunk - 1) // chunk
    begins = chunks.cumsum(-1) - chunks  # an empty bucket's is that of the next bucket
    ranks = torch.arange(length, device=buckets.device) - starts.gather(-1, ordered)
    places, most = begins.gather(-1, ordered) * chunk + ranks, length // chunk + min(count, length)
    held = order.new_zeros((*lead, most * chunk)).scatter_(-1, places, order).unflatten(-1, (most, chunk))
    first = held.new_zeros((*lead, most), dtype=torch.bool).scatter_(-1, begins, True)
    return torch.empty_like(order).scatter_(-1, order, places), held, first


class ChunkAttention(torch.autograd.Function):
    """Attention of each slot to the chunk before and to its own up to itself: one softmax over the keys of all rounds.

    Images' heads are taken one by one on a CPU, where the scores of one lie in the cache. Keeps the softmaxes. Moves
    rows by index only, and never adds at an index, so that every run gives the same numbers.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, slots: Tensor, held: Tensor, first: Tensor) -> Tensor:
        """`(G, T, W)` from q, k and v of that shape and what `chunked` returns."""
        mixed, kept, chunk = torch.empty_like(v), [], held.shape[-1]
        seen = torch.cat([held.roll(1, -2), held], -1)  # (G, R, N, 2 C)
        # A bucket's slots are in the order of positions, its empty ones last, so that no position sees an empty one.
        ahead = torch.arange(-chunk, chunk, device=q.device) - torch.arange(chunk, device=q.device)[:, None]
        mask = wide(q.new_zeros(ahead.shape)).masked_fill_(ahead == 0, OWN).masked_fill_(ahead > 0, -torch.inf)
        for here in heads_of(q):
            scores = wide(rows(q[here], held[here]) @ rows(k[here], seen[here]).mT)  # (G, R, N, C, 2 C)
            scores += mask
            scores[..., :chunk].masked_fill_(first[here][..., None, None], -torch.inf)
            top = scores.amax(-1, keepdim=True)  # finite: each sees itself
            probs = scores.sub_(top).exp_()  # not normalised
            total = probs.sum(-1, keepdim=True)
            shares = in_order(total.log().add_(top), slots[here]).softmax(1)[..., 0]  # of the rounds, (G, R, T)
            shares = torch.zeros_like(total).flatten(2).scatter_(2, slots[here], shares)  # an empty slot has none
            kept.append(probs.mul_(shares.view_as(total) / total).to(v.dtype))
            mixed[here] = in_order(kept[-1] @ rows(v[here], seen[here]), slots[here]).sum(1)
        ctx.save_for_backward(q, k, v, slots, held, seen, mixed, *kept)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """As of any softmax attention, with the rounds' parts added up."""
        q, k, v, slots, held, seen, mixed, *kept = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        means = (wide(grad) * mixed).sum(-1, keepdim=True)
        for here, probs in zip(heads_of(q), kept, strict=True):
            part, mean = rows(grad[here], held[here]), rows(means[here], held[here])
            scores = wide(part @ rows(v[here], seen[here]).mT).sub_(mean).mul_(probs).to(q.dtype)
            grad_q[here] = in_order(scores @ rows(k[here], seen[here]), slots[here]).sum(1)
            for out, moved in ((grad_k, scores.mT @ rows(q[here], held[here])), (grad_v, probs.mT @ part)):
                before, own = moved.chunk(2, -2)
                out[here] = in_order(own + before.roll(-1, -3), slots[here]).sum(1)
        return grad_q, grad_k, grad_v, None, None, None


def heads_of(q: Tensor) -> list[slice]:
    """One after another on a CPU, else all at once."""
    alone = q.device.type == "cpu" and not torch.compiler.is_compiling()
    return [slice(head, head + 1) for head in range(len(q))] if alone else [slice(None)]


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Those of `x (G, T, W)` at `index (G, ...)`, `(G, ..., W)`."""
    begins = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (index.flatten(1) + begins).flatten()).view(*index.shape, -1)


def in_order(x: Tensor, slots: Tensor) -> Tensor:
    """Slots `(G, R, N, C, W)` back in the order of positions, `(G, R, T, W)`."""
    return rows(x.flatten(2, 3).flatten(0, 1), slots.flatten(0, 1)).view(*slots.shape, -1)


def wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
