"""Replays the hooks that had not run when the checkpoint was written, so that a resumed run is bit-identical."""

from typing import Any

import lightning.pytorch as pl

from igpt.training import epoch_ends, normalise_loops, run_validation, validation_is_due

UNFINISHED = "unfinished_step"  # its key in the checkpoint


class ReplayHooks(pl.Callback):
    """Saves which hooks of a step are still due, and runs them before the next step of a resumed run.

    Lightning writes checkpoints before it logs the step's loss, validates and ends the epoch, and a resumed run would
    do none of it. Here the losses are written to the loggers again (the same numbers under the same step), and
    validation and the hooks of the epoch's end take place.
    """

    def __init__(self) -> None:
        self._validation, self._epoch_end = False, False  # whether they are due
        self._ended = False
        self._left: dict[str, Any] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Ask what Lightning itself will ask when the hooks are through."""
        self._validation, self._epoch_end = validation_is_due(trainer), epoch_ends(trainer)

    def on_validation_epoch_end(self, *args: Any) -> None:
        """Validation is done."""
        self._validation = False

    def on_train_epoch_end(self, *args: Any) -> None:
        """So is the epoch."""
        self._epoch_end = False

    def on_train_end(self, *args: Any) -> None:
        """And the training."""
        self._ended = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what is due of this step."""
        losses = {}
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            named = trainer.callback_metrics.items()
            losses = {name: float(value) for name, value in named if name.startswith("train/")}
        checkpoint[UNFINISHED] = {"losses": losses, "validation": self._validation, "epoch_end": self._epoch_end}
        normalise_loops(trainer, checkpoint, self._ended)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep it until training starts."""
        self._left = checkpoint.get(UNFINISHED, {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do what was due."""
        left, self._left, self._ended = self._left, {}, False
        if not left:
            return
        for logger in trainer.loggers:
            logger.log_metrics(left["losses"], step=trainer.global_step - 1)  # where Lightning puts them, from 0
        self._validation, self._epoch_end = left["validation"], left["epoch_end"]
        if self._validation:
            run_validation(trainer)
        if self._epoch_end:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_train_epoch_end(trainer, pl_module)
            pl_module.on_train_epoch_end()


CatchUp = ReplayHooks  # its name in igpt 0.1
