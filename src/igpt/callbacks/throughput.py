"""Images per second of training, over the steps between two log points."""

import time
from typing import Any

import lightning.pytorch as pl


class ImagesPerSecond(pl.Callback):
    """Logs `train/images_per_second`; validation and checkpointing do not count."""

    def __init__(self) -> None:
        self._images, self._seconds, self._started = 0, 0.0, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock; log at the trainer's own rhythm."""
        self._seconds += time.perf_counter() - self._started
        self._images += len(batch[0]) * trainer.world_size
        if trainer.global_step and trainer.global_step % trainer.log_every_n_steps == 0 and self._seconds > 0:  # type: ignore[attr-defined]
            pl_module.log("train/images_per_second", self._images / self._seconds, prog_bar=True)
            self._images, self._seconds = 0, 0.0
