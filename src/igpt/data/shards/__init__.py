"""Shards, the files of palette tokens that `igpt tokenize` writes: their index and their reader."""

from igpt.data.shards.index import NAME, Index, Shard, check_shards
from igpt.data.shards.reader import ShardReader

__all__ = ["NAME", "Index", "Shard", "ShardReader", "check_shards"]
