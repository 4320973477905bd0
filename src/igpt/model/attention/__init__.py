"""Attention: dense, and in patterns that let each position see a part of those before it."""

from igpt.model.attention.dense import LONG, attend, attend_in_blocks, attend_to_past_and_self, attend_to_seen
from igpt.model.attention.layers import LayerCache, Layout, PatternCache, is_dense
from igpt.model.attention.lsh import HashedCache, lsh_attend, rotations
from igpt.model.attention.patterns import LSH, PATTERNS, Pattern, patterns_of
from igpt.model.attention.relative import RelativeBias, Rope, resized_bias

__all__ = [
    "LONG", "LSH", "PATTERNS", "HashedCache", "LayerCache", "Layout", "Pattern", "PatternCache", "RelativeBias",
    "Rope", "attend", "attend_in_blocks", "attend_to_past_and_self", "attend_to_seen", "is_dense", "lsh_attend",
    "patterns_of", "resized_bias", "rotations",
]  # fmt: skip
