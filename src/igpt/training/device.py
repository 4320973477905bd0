"""Device, seed and trainer of a command that runs a network."""

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from igpt.system import Compute, UserError, allow_tf32, keep_freed_memory


def ready(compute: Compute, tf32: bool = True) -> Compute:
    """Print the precision and why, and set up the device; returns its argument.

    Args:
        tf32: whether float32 products on CUDA may round to TF32.
    """
    if compute.device == "cpu":
        keep_freed_memory()
    if compute.device == "cuda":
        allow_tf32(tf32)
    if compute.reason and is_main_process():
        print(f"precision {compute.precision}: {compute.reason}")
    return compute


def is_main_process() -> bool:
    """Whether this is the process that writes, known before any strategy is set up."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def check_seed(seed: int) -> None:
    """Raise a UserError for a seed that no generator takes."""
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed} must lie between 0 and 2^63 - 1")


def quiet_trainer(compute: Compute, **options: Any) -> pl.Trainer:
    """A trainer on one device that prints and writes nothing of its own; `options` are Lightning's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=compute.device,
        precision=compute.precision,  # type: ignore[arg-type]
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
