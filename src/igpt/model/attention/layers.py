"""Attention of a layer whose heads see by patterns or have a bias by offsets, in training and in decoding.

Shapes: B images, H heads, T positions, W width of a head; S slots of a cache, M keys that are read.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from igpt.model.attention.dense import attend_to_seen
from igpt.model.attention.lsh import HashedCache
from igpt.model.attention.patterns import Dense, Pattern
from igpt.model.attention.places import Picture
from igpt.model.attention.tiles import attend_in_tiles, tiling_of


class Layout:
    """What the layers of a network share: where positions lie, and what was made for each pattern, once."""

    def __init__(self, row: Tensor, column: Tensor, shape: tuple[int, int]) -> None:
        self.length, cpu = len(row), torch.device("cpu")
        self._pictures = {(causal, cpu): Picture(row, column, shape, causal) for causal in (False, True)}
        self._made: dict[tuple[Any, ...], Any] = {}

    def picture(self, causal: bool, device: torch.device) -> Picture:
        """Where the positions lie, on a device."""
        if (causal, device) not in self._pictures:
            self._pictures[causal, device] = self._pictures[causal, torch.device("cpu")].to(device)
        return self._pictures[causal, device]

    def made(self, make: Callable[..., Any], what: Any, causal: bool, device: torch.device, *options: Any) -> Any:
        """What `make(what, picture, *options)` gives, with the picture on the device; made once."""
        key = (make, what, causal, device, *options)
        if key not in self._made:
            self._made[key] = make(what, self.picture(causal, device), *options)
        return self._made[key]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a graph would hold every tile
    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: Sequence[Pattern], causal: bool, bias: Tensor | None
               ) -> Tensor:  # fmt: skip
        """Attention `(B, H, S, W)` of the first S positions, S being T where not causal; `bias` is `(H, offsets)`."""
        length, whole = q.shape[2], self.length
        if length < whole:  # what comes later is seen by none of these
            q, k, v = (torch.nn.functional.pad(part, (0, 0, 0, whole - length)) for part in (q, k, v))
        parts, order = [], []
        for pattern in dict.fromkeys(heads):
            group = [index for index, other in enumerate(heads) if other == pattern]
            order += group
            own = q, k, v, bias
            if len(group) < len(heads):
                own = q[:, group], k[:, group], v[:, group], None if bias is None else bias[group]
            parts.append(self._attend(*own, pattern, causal))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts, 1)[:, torch.tensor(order).argsort()]
        return mixed[:, :, :length]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pattern: Pattern, causal: bool) -> Tensor:
        if q.is_cuda:
            from igpt.model.attention.flex import block_mask, flex_attend  # takes a moment to import

            mask = self.made(block_mask, pattern, causal, q.device)
            return flex_attend(q, k, v, mask, self.picture(causal, q.device), bias)
        return attend_in_tiles(q, k, v, self.made(tiling_of, pattern, causal, q.device, bias is not None), bias)


class Plan:
    """What decoding reads and where it keeps it, for heads of given patterns: nothing that no later position sees.

    Args:
        slots: place of each position's keys and values in the cache, int64 `(T,)`.
        size: slots in all, S.
        seen: positions that each position reads, `(T, M)`; those that it does not see are filled up with position 0.
        mask: 0 or -inf, for each head or for all alike, `(T, H or 1, M)`.
    """

    def __init__(self, heads: Sequence[Pattern], picture: Picture) -> None:
        position = torch.arange(len(picture.row), device=picture.row.device)
        kinds = list(dict.fromkeys(heads))
        each = torch.stack([picture.seen(kind, position[:, None], position) for kind in kinds])  # (kinds, T, T)
        union = each.any(0)
        self.slots, self.size = kept_in(union)
        queries, keys = union.nonzero().unbind(1)
        counts = union.sum(1)
        rank = torch.arange(len(keys), device=keys.device) - (counts.cumsum(0) - counts)[queries]
        self.seen = keys.new_zeros(len(position), int(counts.max())).index_put_((queries, rank), keys)
        read = torch.arange(self.seen.shape[1], device=keys.device) < counts[:, None]
        reads = each.gather(2, self.seen.expand(len(kinds), -1, -1)) & read  # (kinds, T, M)
        mask = torch.zeros(reads.shape, device=keys.device).masked_fill_(~reads, float("-inf")).transpose(0, 1)
        self.mask = mask if len(kinds) == 1 else mask[:, [kinds.index(kind) for kind in heads]]


def kept_in(seen: Tensor) -> tuple[Tensor, int]:
    """A slot for each position so that one is used again when nobody sees any more what is in it, and their number.

    Args:
        seen: whether position i sees position j, bool `(T, T)`.
    """
    length = len(seen)
    last = length - 1 - seen.flip(0).int().argmax(0)  # who sees it last
    done: list[list[int]] = [[] for _ in range(length)]
    slots, free, size = [0] * length, list[int](), 0
    for position, until in enumerate(last.tolist()):
        if free:
            slots[position] = heapq.heappop(free)
        else:
            slots[position], size = size, size + 1
        done[until].append(position)
        for over in done[position]:
            heapq.heappush(free, slots[over])
    return torch.tensor(slots, device=seen.device), size


class PatternCache:
    """KV cache of one layer with patterns or a bias: the slots that are still seen, and how to read them.

    Args:
        kept: keys and values, `(2, B, H, S, W)`.
    """

    def __init__(self, heads: Sequence[Pattern], layout: Layout, bias: Tensor | None, like: Tensor, batch: int,
                 width: int) -> None:  # fmt: skip
        self.bias = bias
        self.picture = layout.picture(True, like.device)
        self.plan: Plan = layout.made(Plan, tuple(heads), True, like.device)
        self.kept = like.new_zeros(2, batch, len(heads), self.plan.size, width)

    def fill(self, k: Tensor, v: Tensor) -> None:
        """Keep the first positions' keys and values `(B, H, S, W)`; of two in one slot the later one."""
        slots = self.plan.slots[: k.shape[2]]
        last = slots.new_full((self.plan.size,), -1)
        last = last.scatter_reduce(0, slots, torch.arange(len(slots), device=slots.device), "amax")
        used = (last >= 0).nonzero().flatten()
        self.kept[:, :, :, used] = torch.stack([k, v])[:, :, :, last[used]].to(self.kept.dtype)

    def attend(self, q: Tensor, new: Tensor, position: Tensor) -> Tensor:
        """Keep the new key and value `(2, B, H, 1, W)` and attend to what `position (1,)` sees: `(B, H, 1, W)`."""
        plan = self.plan
        self.kept.index_copy_(3, plan.slots[position], new)
        seen = plan.seen[position][0]
        k, v = self.kept.index_select(3, plan.slots[seen])
        mask = plan.mask[position].transpose(0, 1).to(q.dtype)  # (H or 1, 1, M)
        if self.bias is not None:
            mask = mask + self.bias[:, None, self.picture.offsets(position, seen)].to(q.dtype)
        return attend_to_seen(q, k, v, mask[None])


LayerCache = PatternCache | HashedCache  # of a layer that is not dense


def is_dense(heads: Sequence[Pattern]) -> bool:
    """Whether no head hides anything but what comes later."""
    return all(isinstance(pattern, Dense) for pattern in heads)
