"""Tokenising images into shards, on one machine or a Dask cluster."""

from igpt.tokenization.engines import run_here, run_on_dask
from igpt.tokenization.output import write_shards
from igpt.tokenization.tasks import Job

__all__ = ["Job", "run_here", "run_on_dask", "write_shards"]
