"""What igpt relies on in Lightning and has no public name there: each a small function with a plain name.

Read in Lightning 2.6.6; tests/training/test_lightning_internals.py fails where a name or its meaning has changed.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.fabric.connector import _PRECISION_INPUT as PrecisionInput  # type: ignore[attr-defined]  # noqa: N811
from lightning.fabric.loggers.logger import _DummyExperiment as DummyExperiment
from lightning.pytorch.loops import evaluation_loop
from lightning.pytorch.trainer.connectors import callback_connector

__all__ = ["DummyExperiment", "PrecisionInput"]  # the type of `precision`; a logger's writer that writes nothing

LOGGED_ANEW = (
    "training_step",
    "on_before_optimizer_step",
    "on_train_batch_end",
)  # hooks whose values a step logs after it has begun


def trainer_of(module: pl.LightningModule) -> pl.Trainer | None:
    """The trainer that a module is attached to, if it is (`module.trainer` raises an error where it is not)."""
    return module._trainer


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether the last batch did not end an optimizer step, so that there are gradients which no checkpoint holds."""
    return trainer.fit_loop._should_accumulate()


def at_log_point(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what this training batch logs: it ends an optimizer step that is to be logged.

    Whatever is logged is read from the device, which waits for all that it was asked to do, and averaged over the
    processes. Lightning would do both at every step; igpt logs at these alone.
    """
    if is_accumulating(trainer):
        return False
    return bool(trainer.fast_dev_run or trainer._logger_connector.should_update_logs)  # type: ignore[attr-defined]


def forget_logged(trainer: pl.Trainer) -> None:
    """At the start of a training batch: keep Lightning from reading and writing an earlier step's values once more.

    They stay in `trainer.callback_metrics` and on the progress bar, as the last that were logged.
    """
    for result in (trainer._results or {}).values():
        if result.is_tensor and result.meta.fx in LOGGED_ANEW and not result.meta.on_epoch:
            result.has_reset = True


def log_at(trainer: pl.Trainer, step: int) -> None:
    """Have an evaluation log its values at a step, that of its checkpoint, instead of 0."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def validation_is_due(trainer: pl.Trainer) -> bool:
    """In `on_train_batch_end`: whether Lightning validates after this batch."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return trainer.num_val_batches != [0] and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def epoch_ends(trainer: pl.Trainer) -> bool:
    """In `on_train_batch_end`: whether this batch is the epoch's last."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def run_validation(trainer: pl.Trainer) -> None:
    """Run a whole validation in the middle of training, as Lightning does between two steps."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def normalise_loops(trainer: pl.Trainer, checkpoint: dict[str, Any], ended: bool) -> None:
    """Set a checkpoint's loop state to that of `on_train_batch_end`, whichever hook saves.

    Lightning resumes the states of other hooks differently, and in some loses count of epochs or logged steps.

    Args:
        checkpoint: changed in place.
        ended: whether the training has ended; Lightning then counts the epoch of the last step as a whole one.
    """
    state = checkpoint["loops"]["fit_loop"]
    batches = state["epoch_loop.batch_progress"]
    if batches["current"]["processed"] == 0:  # between two epochs, which Lightning resumes exactly
        return
    epoch = trainer.fit_loop.epoch_progress.current.completed - ended
    for part in ("total", "current"):
        done = batches[part]["processed"]
        batches[part].update(ready=done, started=done, completed=done - 1)
        state["epoch_progress"][part].update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
        state["epoch_loop.val_loop.batch_progress"][part].update(ready=0, started=0, processed=0, completed=0)
    logged = trainer.global_step - (not is_accumulating(trainer))
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = logged


def dump_checkpoint(trainer: pl.Trainer) -> dict[str, Any]:
    """What `trainer.save_checkpoint` writes, without its barrier, which a process that failed to write would miss."""
    content: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return content


def saves_sharded(trainer: pl.Trainer) -> bool:
    """Whether the strategy writes checkpoints as folders to which each process adds a file."""
    return bool(getattr(trainer.strategy, "_save_distributed_checkpoint", False))


def disable_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Keep several processes from sharing at every step whether one got SIGTERM, which waits for the device."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def disable_rich() -> None:
    """Have Lightning write tables as plain text, also where `rich` is installed, so that programs can read them."""
    for module in (callback_connector, evaluation_loop):
        module._RICH_AVAILABLE = False  # type: ignore[attr-defined]
