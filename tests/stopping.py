"""Callbacks for tests that end a run at a chosen moment, put into it through `--trainer.callbacks`."""

import json
import os
import signal
import time
from pathlib import Path

import lightning.pytorch as pl


class Stop(pl.Callback):
    """Sends a real signal to this process, or breaks off like a kill does, once `step` steps are done.

    Args:
        step: optimizer steps before the moment.
        how: name of the signal; or "kill", an exception that nobody saves for; or "hang", after leaving a file `hangs`.
        where: "batch" is at the start of the batch that follows, "validation" in the middle of one.
    """

    def __init__(self, step: int, how: str = "SIGTERM", where: str = "batch") -> None:
        self.step, self.how, self.where = step, how, where

    def _now(self, trainer: pl.Trainer, where: str) -> None:
        if trainer.global_step == self.step and where == self.where and not trainer.sanity_checking:
            if self.how == "kill":
                raise SystemExit(9)
            if self.how == "hang":
                (Path(trainer.log_dir) / "hangs").touch()
                time.sleep(600)
            os.kill(os.getpid(), getattr(signal, self.how))
            self.step = -1

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Before the batch."""
        self._now(trainer, "batch")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        """In a validation."""
        if batch_idx == 1:
            self._now(trainer, "validation")


def stop(step: int, how: str = "SIGTERM", where: str = "batch") -> list[str]:
    """The option that puts `Stop` into a run."""
    arguments = {"step": step, "how": how, "where": where}
    return ["--trainer.callbacks+", json.dumps({"class_path": "tests.stopping.Stop", "init_args": arguments})]
