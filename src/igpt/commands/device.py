"""Where a command runs its network."""

import logging
from typing import Any

import lightning.pytorch as pl
import torch

from igpt.allocator import keep_freed_memory
from igpt.errors import UserError


def device_of(accelerator: str) -> str:
    """The device that a Lightning-like accelerator name stands for, made ready.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise UserError(f"--accelerator {accelerator}; choose auto, cpu or gpu")
    if accelerator in ("gpu", "cuda") and not has_gpu:
        raise UserError(f"--accelerator {accelerator}: PyTorch sees no GPU here; use cpu")
    if has_gpu and accelerator != "cpu":
        return "cuda"
    keep_freed_memory()
    return "cpu"


def check_seed(seed: int) -> None:
    """Raise a UserError for a seed that no generator takes."""
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed} must lie between 0 and 2^63 - 1")


def quiet_trainer(**options: Any) -> pl.Trainer:
    """A trainer on one device that prints and writes nothing of its own; `options` are Lightning's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
