"""Shards, which are files of palette tokens: their index, and reading them."""

from igpt.data.shards.index import NAME, Index, Shard, check_shards
from igpt.data.shards.reader import ShardReader

__all__ = ["NAME", "Index", "Shard", "ShardReader", "check_shards"]
