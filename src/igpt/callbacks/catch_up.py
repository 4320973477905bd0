"""What a step still had to do when its checkpoint was written, done when a run goes on from there."""

from typing import Any

import lightning.pytorch as pl

UNFINISHED = "unfinished_step"  # its key in the checkpoint


class CatchUp(pl.Callback):
    """Makes the losses in the logs, too, those of an uninterrupted run.

    Lightning writes checkpoints before it logs the step's loss, validates and ends the epoch, and a resumed run would
    do none of it. Here the checkpoint remembers what was due: the losses are written to the loggers again (the same
    numbers under the same step), validation and the hooks of the epoch's end take place before the next step. The
    loops' counters are brought to the one state that Lightning resumes exactly, whatever the moment of saving.
    """

    def __init__(self) -> None:
        self._validation, self._epoch_end = False, False  # whether they are due
        self._ending = False
        self._left: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask what Lightning itself will ask when the hooks are through; there is no public question."""
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None
        self._validation = trainer.num_val_batches != [0] and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        self._epoch_end = loop.epoch_loop._num_ready_batches_reached()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is done."""
        self._validation = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """So is the epoch."""
        self._epoch_end = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning counts the epoch that the last step falls into as a whole one."""
        self._ending = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what is left of this step beside the state."""
        losses = {}
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            named = trainer.callback_metrics.items()
            losses = {name: float(value) for name, value in named if name.startswith("train/")}
        checkpoint[UNFINISHED] = {"losses": losses, "validation": self._validation, "epoch_end": self._epoch_end}
        loop = trainer.fit_loop
        logged = trainer.global_step - (0 if loop._should_accumulate() else 1)
        epoch = loop.epoch_progress.current.completed - (1 if self._ending else 0)
        settle(checkpoint["loops"]["fit_loop"], epoch, logged)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember it until training starts."""
        self._left = checkpoint.get(UNFINISHED, {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do what was left."""
        left, self._left, self._ending = self._left, {}, False
        if not left:
            return
        for logger in trainer.loggers:
            logger.log_metrics(left["losses"], step=trainer.global_step - 1)  # where Lightning puts them, from 0
        self._validation, self._epoch_end = left["validation"], left["epoch_end"]
        if self._validation:
            validation = trainer.fit_loop.epoch_loop.val_loop
            validation.restarting = False  # all of it
            trainer.validating = True
            validation.run()
            trainer.training = True
        if self._epoch_end:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_train_epoch_end(trainer, pl_module)
            pl_module.on_train_epoch_end()


def settle(fit_loop: dict[str, Any], epoch: int, logged: int) -> None:
    """Bring a loops' state to that behind a training batch, before what follows it: `on_train_batch_end`.

    Lightning resumes states from other hooks differently, and loses count of epochs or logged steps in some.

    Args:
        fit_loop: the loop's part of the checkpoint, changed in place.
        epoch: number of the epoch, from 0.
        logged: optimizer steps that had been logged.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    if batches["current"]["processed"] == 0:  # between two epochs, which Lightning knows well
        return
    for part in ("total", "current"):
        done = batches[part]["processed"]
        batches[part].update(ready=done, started=done, completed=done - 1)
        fit_loop["epoch_progress"][part].update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
        fit_loop["epoch_loop.val_loop.batch_progress"][part].update(ready=0, started=0, processed=0, completed=0)
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = logged
