"""Attention: dense, and in patterns that let each position see a part of those before it."""

from igpt.model.attention.dense import LONG, attend, attend_in_blocks, attend_to_past_and_self, attend_to_seen

__all__ = ["LONG", "attend", "attend_in_blocks", "attend_to_past_and_self", "attend_to_seen"]
