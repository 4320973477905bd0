"""Attention by locality-sensitive hashing (Reformer, Kitaev et al. 2020), exactly causal.

A vector is both query and key; random rotations put similar vectors into the same bucket, and a position attends to
positions of its own bucket. Several rounds of hashing make it unlikely that two similar vectors never meet.

The published chunking is not causal: it sorts positions by bucket and cuts the sorted row into chunks, so that the
chunk which a position falls into depends on how many later positions lie in lower buckets. Here every bucket begins a
chunk of its own. A position's place is then its rank in its bucket, the number of earlier positions there, which
nothing later can change; it attends to those before it in its own chunk of `chunk` ranks and in the whole chunk before,
both of its own bucket. Chunks may stay partly empty, at most one a bucket, so that time and memory grow with
`(T + buckets * chunk) * chunk * rounds`, and not with T^2.

Shapes: B images, H heads, R rounds, T positions, W width of a head, K buckets, C slots a chunk, N chunks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from igpt.model.kernels import rms_norm
from igpt.system import UserError

KEY_EPS = 1e-6  # as published
OWN = -1e5  # score of a position with itself, as published: it counts only where nothing else is seen


@dataclass(frozen=True)
class LSH:
    """How positions are hashed.

    Args:
        buckets: of each round; even, since rotated vectors and their negatives make them.
        rounds: of hashing, each with rotations of its own. More rounds come closer to dense attention, and take longer.
        chunk: ranks of a bucket that are attended to together. A position sees at least `chunk` positions of its
            bucket before it, where there are as many, and fewer than `2 * chunk`.

    Raises:
        UserError: a number that makes no hashing.
    """

    buckets: int = 16
    rounds: int = 2
    chunk: int = 64

    def __post_init__(self) -> None:
        if self.buckets < 2 or self.buckets % 2:
            raise UserError(f"transformer.attention: buckets is {self.buckets}; it must be even and at least 2")
        for name in ("rounds", "chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"transformer.attention: {name} is {getattr(self, name)}; it must be at least 1")


def rotations(width: int, buckets: int, rounds: int, seed: int, heads: int) -> Tensor:
    """Random directions `(H, W, R, K / 2)`, float32, the same for the same seed: a layer keeps its own."""
    return torch.randn(heads, width, rounds, buckets // 2, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def buckets_of(qk: Tensor, rotations: Tensor) -> Tensor:
    """Bucket of each position in each round, int64 `(B, H, R, T)`: the largest of `[x r; -x r]`, for `qk (B, H, T, W)`.

    Computed in float32 or wider whatever autocast says, so that training and decoding put a vector in the same bucket.
    """
    wide = torch.promote_types(qk.dtype, torch.float32)
    with torch.autocast(qk.device.type, enabled=False):
        rotated = torch.einsum("bhtw,hwrk->bhrtk", qk.to(wide), rotations.to(wide))
    return torch.cat([rotated, -rotated], -1).argmax(-1)


def keys_of(qk: Tensor) -> Tensor:
    """The queries as keys: of root mean square `1 / sqrt(W)`, which also holds what scores are scaled by."""
    wide = qk.to(torch.promote_types(qk.dtype, torch.float32))
    return rms_norm(wide, wide.new_full(wide.shape[-1:], wide.shape[-1] ** -0.5), KEY_EPS).to(qk.dtype)


def lsh_attend(qk: Tensor, v: Tensor, rotations: Tensor, chunk: int) -> Tensor:
    """Causal attention of all positions, `(B, H, T, W)`, for shared queries and keys `qk` and values `v` of that shape.

    What a position gets does not change in one bit when later positions change.

    Args:
        rotations: of this layer, `(H, W, R, K / 2)`.
        chunk: ranks a chunk, C.
    """
    chunk = min(chunk, qk.shape[2])
    slots, first = chunked(buckets_of(qk, rotations), 2 * rotations.shape[-1], chunk)
    q, k, v = (to_chunks(part, slots, first.shape[-1], chunk) for part in (qk, keys_of(qk), v))
    scores = q @ with_chunk_before(k).mT  # (B, H, R, N, C, 2 C)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores += seen_in_chunks(chunk, scores)
    scores[..., :chunk].masked_fill_(first[..., None, None], -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)  # finite: each sees itself
    probs = scores.sub_(top).exp_()  # not normalised
    total = probs.sum(-1, keepdim=True)
    mixed = probs.to(v.dtype) @ with_chunk_before(v) / total
    weights = from_chunks(top + total.log(), slots).softmax(2)  # of the rounds: the softmax of their logsumexps
    return (weights * from_chunks(mixed, slots)).sum(2).to(v.dtype)


def chunked(buckets: Tensor, count: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Where each position lies when every bucket begins a chunk, and which chunks are the first of their bucket.

    Args:
        buckets: int64 `(B, H, R, T)`, each below `count`, K.
        chunk: slots a chunk, C, at most T.

    Returns:
        Slots int64 `(B, H, R, T)`, and bool `(B, H, R, N)` with N = T // C + K, or + T where there are fewer positions.
    """
    length = buckets.shape[-1]
    ordered, order = buckets.sort(stable=True)
    every = torch.arange(count, device=buckets.device).repeat(*buckets.shape[:-1], 1)
    starts = torch.searchsorted(ordered, every)
    sizes = starts.diff(append=starts.new_full((*starts.shape[:-1], 1), length))
    chunks = (sizes + chunk - 1) // chunk
    firsts = chunks.cumsum(-1) - chunks  # an empty bucket's is that of the next bucket
    ranks = torch.arange(length, device=buckets.device) - starts.gather(-1, ordered)
    slots = torch.empty_like(order).scatter_(-1, order, firsts.gather(-1, ordered) * chunk + ranks)
    begun = firsts.new_zeros((*firsts.shape[:-1], length // chunk + min(count, length)), dtype=torch.bool)
    return slots, begun.scatter_(-1, firsts, True)


def seen_in_chunks(chunk: int, like: Tensor) -> Tensor:
    """What is added to the scores of a chunk with that before it and itself, `(C, 2 C)`.

    Slots of a bucket are in the order of their positions, and empty ones come last: what is earlier in sight is earlier
    in the picture, and a position never sees an empty slot.
    """
    mask = like.new_full((chunk, 2 * chunk), -torch.inf).triu_(chunk + 1)
    mask.diagonal(chunk).fill_(OWN)
    return mask


def to_chunks(x: Tensor, slots: Tensor, chunks: int, chunk: int) -> Tensor:
    """Positions `(B, H, T, W)` in their slots, for each round: `(B, H, R, N, C, W)`, zeros in the empty ones."""
    index = slots[..., None].expand(*slots.shape, x.shape[-1])
    empty = x.new_zeros((*slots.shape[:3], chunks * chunk, x.shape[-1]))
    return empty.scatter(3, index, x[:, :, None].expand_as(index)).view(*slots.shape[:3], chunks, chunk, -1)


def from_chunks(x: Tensor, slots: Tensor) -> Tensor:
    """Slots `(B, H, R, N, C, W)` back in the order of positions, `(B, H, R, T, W)`."""
    return x.flatten(3, 4).gather(3, slots[..., None].expand(*slots.shape, x.shape[-1]))


def with_chunk_before(x: Tensor) -> Tensor:
    """`(..., N, C, W)` to `(..., N, 2 C, W)`; before the first chunk stands the last one, which is not seen there."""
    return torch.cat([x.roll(1, -3), x], -2)


def lsh_step(qk: Tensor, k: Tensor, v: Tensor, buckets: Tensor, position: Tensor, chunk: int) -> Tensor:
    """One row of `lsh_attend`, `(B, H, 1, W)`, in decoding: time grows with T.

    A key's weight is the exponential of its score times the number of rounds that see it, which is what combining the
    rounds by the logsumexp of their scores amounts to.

    Args:
        qk: of the position, `(B, H, 1, W)`.
        k: `keys_of` all positions so far, the new one's included, `(B, H, T, W)`; what lies behind is not looked at.
        v: their values.
        buckets: theirs, `(B, H, R, T)`.
        position: int64 `(1,)`, a tensor: the device is not waited for.
        chunk: ranks a chunk.
    """
    places = torch.arange(k.shape[2], device=k.device)
    same = (buckets == buckets.index_select(-1, position)) & (places <= position)
    ranks = same.cumsum(-1) - 1  # (B, H, R, T)
    least = (ranks.index_select(-1, position) // chunk - 1) * chunk
    rounds = (same & (ranks >= least)).sum(2, dtype=torch.float32)[:, :, None]  # that see a key, (B, H, 1, T)
    scores = qk @ k.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) + rounds.log()  # -inf where none does
    scores = scores + (places == position) * OWN
    return scores.softmax(-1).to(v.dtype) @ v
