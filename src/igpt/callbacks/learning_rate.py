"""The learning rate in the logs."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LearningRateMonitor

from igpt.training import at_log_point


class LearningRate(LearningRateMonitor):
    """Logs the rate of each optimizer step that is logged once, also where several batches make a step."""

    def __init__(self) -> None:
        super().__init__("step")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """At the batch that ends the step."""
        if at_log_point(trainer):
            super().on_train_batch_start(trainer, *args, **kwargs)
