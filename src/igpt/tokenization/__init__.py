"""Tokenising images into shards, on one machine or a Dask cluster."""

from igpt.tokenization.engines import run_here, run_on_dask
from igpt.tokenization.tasks import UNFINISHED, Job, Record, Task, forget_skips, plan_of, same_plan, tasks_of
from igpt.tokenization.writing import stand_ins

__all__ = [
    "UNFINISHED", "Job", "Record", "Task", "forget_skips", "plan_of", "run_here", "run_on_dask", "same_plan",
    "stand_ins", "tasks_of",
]  # fmt: skip
