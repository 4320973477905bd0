"""Preemption: on a signal a run finishes its step, saves and exits, so that it can be resumed."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint

from igpt.callbacks.step_checkpoint import StepCheckpoint, stopping_guard
from igpt.checkpoints import LAST
from igpt.system import ASKED_TO_END, UserError, complain, same_file
from igpt.training import disable_sigterm_broadcast, is_accumulating

REQUEUE = 75  # exit code: EX_TEMPFAIL of sysexits.h, "try again later"
INTERRUPTED = 130  # exit code: what shells give a command that Ctrl-C has ended
ECHO = 1.0  # seconds; `timeout` and others send a signal to a process and to its group


class Preemption(Checkpoint):
    """On SIGTERM, SIGUSR1 or Ctrl-C: finish the step, save, say how to go on, exit; on a second signal exit at once.

    The exit code is 75, by which a scheduler knows that the run can go on; after Ctrl-C it is 130. A signal during
    validation ends it after the batch, and the resumed run validates. At the last step, or where `LossGuard` has
    stopped the run, it ends as it would have. (Lightning calls callbacks of this base class last.)

    Args:
        every_n_steps: optimizer steps, or batches of validation, between two agreements of several processes.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        self.asked: signal.Signals | None = None
        self._since = 0.0
        self._earlier: dict[signal.Signals, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen from here on."""
        self.asked = None
        self._listen()

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen again: Lightning has put a handler of its own there, which would stop without saving."""
        self._listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen again, where there was no sanity check; Lightning's handler may have taken a signal until now."""
        self._listen()
        if self.asked is None and trainer.received_sigterm:
            self._note(signal.SIGTERM, None)
        disable_sigterm_broadcast(trainer)

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in ASKED_TO_END:
                earlier = signal.signal(number, self._note)
                self._earlier.setdefault(number, earlier)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked is None:
            self.asked, self._since = signal.Signals(number), now
        elif now - self._since > ECHO:
            os.write(2, b"igpt: second signal, ends at once; the last checkpoint stays as it is\n")
            os._exit(128 + number)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop after a whole step."""
        self._stop_if_asked(trainer, trainer.global_step)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop in the middle of a validation."""
        if not trainer.sanity_checking:
            self._stop_if_asked(trainer, args[3])  # batch_idx

    def _stop_if_asked(self, trainer: pl.Trainer, count: int) -> None:
        last = trainer.global_step >= trainer.max_steps > 0
        if last or stopping_guard(trainer) or is_accumulating(trainer):
            return
        asked = self.asked is not None
        if (
            trainer.world_size > 1
        ):  # a signal reaches them at different moments, so they agree, now and then: that waits
            asked = count % self.every_n_steps == 0 and trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked or stopping_guard(trainer, look=True):  # a lost run is not saved to go on
            return
        saver = next(callback for callback in trainer.callbacks if isinstance(callback, StepCheckpoint))  # type: ignore[attr-defined]
        path = saver.save(trainer)
        if trainer.is_global_zero:
            self._say(trainer.global_step, path, saver)
        code = INTERRUPTED if self.asked == signal.SIGINT else REQUEUE
        raise SystemExit(0 if started_by_another(trainer) else code)

    def _say(self, step: int, path: Path | None, saver: StepCheckpoint) -> None:
        by = self.asked.name if self.asked else "a signal to another process"
        by = "Ctrl-C" if by == "SIGINT" else by
        if path is None:
            raise UserError(f"stopped by {by} at step {step}, but it could not be saved; {saver.to_go_on()}")
        last = path.parent / LAST
        saved, word = (last, "last") if same_file(last, path) else (path, path)  # it could not be linked
        complain(
            f"igpt fit: stopped by {by} at step {step}; saved {saved}; to go on, run the same command with "
            f"--ckpt_path {word}"
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}


def started_by_another(trainer: pl.Trainer) -> bool:
    """Whether another process of this run started this one, as Lightning does where no scheduler has started them all.

    That process takes any exit code but 0 for a crash, and kills the run, itself included.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and environment.local_rank() > 0
