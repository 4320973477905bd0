"""When a training step's values go to the loggers: at the trainer's log points, and nowhere in between.

Whatever is logged is read from the device, which waits for all that it was asked to do, and is averaged over the
processes. Lightning would do both at every step. The names that begin with _ are of Lightning 2.6.
"""

import lightning.pytorch as pl

LOGGED_ANEW = ("training_step", "on_train_batch_end")  # hooks whose values a step logs after it has begun


def at_log_point(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what this training batch logs: it ends an optimizer step that is to be logged."""
    if trainer.fit_loop._should_accumulate():
        return False
    return bool(trainer.fast_dev_run or trainer._logger_connector.should_update_logs)  # type: ignore[attr-defined]


def forget_logged(trainer: pl.Trainer) -> None:
    """At the start of a training batch: keep Lightning from reading and writing an earlier step's values once more.

    They stay in `trainer.callback_metrics` and on the progress bar, as the last that were logged.
    """
    for result in (trainer._results or {}).values():
        if result.is_tensor and result.meta.fx in LOGGED_ANEW and not result.meta.on_epoch:
            result.has_reset = True
