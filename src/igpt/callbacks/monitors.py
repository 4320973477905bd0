"""Learning rate and images per second, in the logs."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from igpt.training import at_log_point


class LearningRate(LearningRateMonitor):
    """Logs the rate of each optimizer step that is logged, once, also where gradients are accumulated."""

    def __init__(self) -> None:
        super().__init__("step")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """At the batch that ends the step."""
        if at_log_point(trainer):
            super().on_train_batch_start(trainer, *args, **kwargs)


class ImagesPerSecond(pl.Callback):
    """Logs `train/images_per_second` between log points: waiting for data counts, validation does not."""

    def __init__(self) -> None:
        self._images, self._since, self._paused = 0, 0.0, 0.0

    def on_train_start(self, *args: Any) -> None:
        """Start the clock."""
        self._images, self._since = 0, time.perf_counter()

    def on_validation_start(self, *args: Any) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, *args: Any) -> None:
        """Let the clock go on."""
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, when the device has done what was asked of it."""
        self._images += len(batch[0]) * trainer.world_size
        if at_log_point(trainer):
            if pl_module.device.type != "cpu":
                torch.accelerator.synchronize(pl_module.device)
            now = time.perf_counter()
            pl_module.log("train/images_per_second", self._images / (now - self._since), prog_bar=True)
            self._images, self._since = 0, now
