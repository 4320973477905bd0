"""Images per second of training, by the wall clock between two log points."""

import time
from typing import Any

import lightning.pytorch as pl
import torch

from igpt.training import at_log_point


class ImagesPerSecond(pl.Callback):
    """Logs `train/images_per_second`: waiting for data counts, validation and its pictures do not."""

    def __init__(self) -> None:
        self._images, self._since, self._paused = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._images, self._since = 0, time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the clock go on."""
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log at the trainer's log points, when the device has done what was asked of it."""
        self._images += len(batch[0]) * trainer.world_size
        if at_log_point(trainer):
            if pl_module.device.type != "cpu":
                torch.accelerator.synchronize(pl_module.device)
            now = time.perf_counter()
            pl_module.log("train/images_per_second", self._images / (now - self._since), prog_bar=True)
            self._images, self._since = 0, now
