"""Checkpoints at regular steps and at the end; `last.ckpt` always points to the newest."""

import os
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint


class StepCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/step=NNNNNNN.ckpt` into the run's folder, keeps all, and links `last.ckpt`.

    Args:
        every_n_train_steps: optimizer steps between checkpoints; the last step is always saved.
        dirpath: folder to write to; `runs/NAME/checkpoints` if left out.

    """

    def __init__(self, every_n_train_steps: int = 1000, dirpath: str | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="{step:07d}",
            every_n_train_steps=every_n_train_steps,
            save_top_k=-1,
            save_last="link",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

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
