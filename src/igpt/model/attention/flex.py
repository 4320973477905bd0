"""Patterns on CUDA, by PyTorch's FlexAttention, which skips the blocks of keys that a block of queries does not see."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from igpt.model.attention.patterns import Pattern
from igpt.model.attention.places import Picture


def block_mask(pattern: Pattern, picture: Picture) -> BlockMask:
    """Which blocks are seen, on the picture's device; made once for a pattern."""

    def sees(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return picture.seen(pattern, query, key)

    length = len(picture.row)
    return create_block_mask(sees, None, None, length, length, device=picture.row.device)


def flex_attend(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, picture: Picture, bias: Tensor | None) -> Tensor:
    """Attention `(B, H, T, W)` under the mask; `bias (H, offsets)` is added to the scores."""

    def biased(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert bias is not None
        return score + bias[head, picture.offsets(query, key)]

    mixed: Tensor = kernel(q.is_cuda)(q, k, v, score_mod=None if bias is None else biased, block_mask=mask)
    return mixed


@cache
def kernel(compiled: bool) -> Any:
    """FlexAttention; not compiled it makes all scores, and serves tests alone."""
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
