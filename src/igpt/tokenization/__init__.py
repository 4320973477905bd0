"""Tokenising images into shards, and the engines for it and other work: one machine or a Dask cluster."""

from igpt.tokenization.engines import check_engine, run_here, run_on_dask
from igpt.tokenization.output import write_shards
from igpt.tokenization.tasks import Job

__all__ = ["Job", "check_engine", "run_here", "run_on_dask", "write_shards"]
