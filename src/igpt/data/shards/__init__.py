"""Shards, the files of tokens that `igpt tokenize` writes: their index and their reader."""

from igpt.data.shards.index import NAME, Index, Shard, check_shards
from igpt.data.shards.kinds import CodeTokens, ColorTokens, TokenKind
from igpt.data.shards.reader import ShardReader

__all__ = ["NAME", "CodeTokens", "ColorTokens", "Index", "Shard", "ShardReader", "TokenKind", "check_shards"]
