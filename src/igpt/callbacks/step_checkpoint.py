"""Checkpoints at regular steps, at named steps and at the end; `last.ckpt` always points to the newest."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from igpt.errors import UserError


class StepCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/step=NNNNNNN.ckpt` into the run's folder, keeps all, and links `last.ckpt`.

    Args:
        every_n_train_steps: optimizer steps between checkpoints; 0 is none; the last step is always saved.
        dirpath: folder to write to; `runs/NAME/checkpoints` if left out.
        at_steps: steps to save at besides, such as 65536, 131072, 262144, 524288, the points of the paper's curve of
            accuracy against loss (section 4.2).

    Raises:
        UserError: a step below 1.
    """

    def __init__(
        self, every_n_train_steps: int = 1000, dirpath: str | None = None, at_steps: list[int] | None = None
    ) -> None:
        if at_steps and min(at_steps) < 1:
            raise UserError(f"checkpoint.at_steps {min(at_steps)}: steps are counted from 1; give steps of at least 1")
        super().__init__(
            dirpath=dirpath,
            filename="{step:07d}",
            every_n_train_steps=every_n_train_steps,
            save_top_k=-1,
            save_last="link",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.at_steps = at_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the interval, and at the named steps unless that has just been done."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step in (self.at_steps or ()) and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end, which rarely falls on a multiple of the interval."""
        if trainer.fast_dev_run or self.dirpath is None:  # type: ignore[attr-defined]
            return
        end = Path(self.format_checkpoint_name({"step": trainer.global_step}))  # type: ignore[dict-item]
        if self._last_global_step_saved == trainer.global_step and end.exists():
            return
        trainer.save_checkpoint(end, weights_only=False)
        if trainer.is_global_zero:
            link = end.with_name(f".{os.getpid()}.last")
            link.symlink_to(end.name)
            os.replace(link, end.with_name("last.ckpt"))
