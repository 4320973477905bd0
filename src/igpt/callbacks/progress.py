"""Progress line, refreshed by time and not by step, so that its cost does not depend on how quick the steps are."""

import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from igpt.system import UserError, clock


class ProgressLine(ProgressBar):
    """Shows optimizer steps of a training or batches of an evaluation, their pace, and the last values.

    On a terminal the line is written over; in a file each refresh is a line.

    Args:
        every_s: seconds between two refreshes on a terminal.
        file_every_s: seconds between two lines where stdout is no terminal.

    Raises:
        UserError: a number of seconds below 0.
    """

    def __init__(self, every_s: float = 0.25, file_every_s: float = 60.0) -> None:
        super().__init__()
        if not (every_s >= 0 and file_every_s >= 0):
            raise UserError("ProgressLine: every_s and file_every_s must be at least 0")
        self.every_s = every_s
        self.file_every_s = file_every_s
        self._enabled = True
        self._shown = time.monotonic()  # the last refresh
        self._width = 0  # of the terminal's line that is still to be ended
        self._label, self._done, self._total = "", 0, math.inf
        self._first, self._since = 0, 0.0  # steps done, and when, at which the pace began to be measured

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show the line again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print below the line."""
        self._end_line()
        print(*args, **kwargs)

    def say(self, text: str) -> None:
        """On a terminal, show on the line what goes on while no step is taken."""
        if self._enabled and sys.stdout.isatty():
            self._write(text)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """So many optimizer steps are done."""
        self._advance(self.train_description, trainer.global_step, trainer.max_steps)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One batch further."""
        if trainer.sanity_checking:
            self._advance_in(self.sanity_check_description, trainer.num_sanity_val_batches, *args[3:])
        else:
            self._advance_in(self.validation_description, trainer.num_val_batches, *args[3:])

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One batch further."""
        self._advance_in(self.test_description, trainer.num_test_batches, *args[3:])

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One batch further."""
        self._advance_in(self.predict_description, trainer.num_predict_batches, *args[3:])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the end."""
        if self._label:
            self._show(time.monotonic())
        self._end_line()
        self._label = ""

    on_test_end = on_predict_end = on_train_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the end, unless training goes on."""
        if trainer.state.fn == "validate":
            self.on_train_end(trainer, pl_module)

    def on_exception(self, *args: Any) -> None:
        """Leave the line to what is going to be said."""
        self._end_line()

    def _advance_in(self, label: str, totals: Sequence[float], batch_idx: int, loader: int = 0) -> None:
        label = f"{label} {loader}" if len(totals) > 1 else label
        self._advance(label, batch_idx + 1, totals[loader])

    def _advance(self, label: str, done: int, total: float) -> None:
        now = time.monotonic()
        if label != self._label:
            self._label, self._first, self._since = label, done, now
        self._done, self._total = done, total
        if now - self._shown >= (self.every_s if sys.stdout.isatty() else self.file_every_s):
            self._show(now)

    def _show(self, now: float) -> None:
        self._shown = now
        if not self._enabled:
            return
        pace = (self._done - self._first) / (now - self._since) if now > self._since else 0.0
        values = self.get_metrics(self.trainer, self.trainer.lightning_module)
        text = progress_text(self._label, self._done, self._total, pace, values)
        if sys.stdout.isatty():
            self._write(text)
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _write(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        sys.stdout.write(f"\r{text:{self._width or 1}}")  # over what stands there
        sys.stdout.flush()
        self._width = len(text)

    def _end_line(self) -> None:
        if self._width:
            sys.stdout.write("\n")
            self._width = 0


def progress_text(label: str, done: int, total: float, pace: float, values: Mapping[str, Any]) -> str:
    """The line: `Training: 40/1095 (4 %), 10.8/s, 1:37 left, train/loss 2.31`.

    Args:
        done, total: steps or batches; the total may be infinite.
        pace: of them a second; 0 where it is not known yet.
    """
    place = f"{done}/{total:.0f} ({100 * done / total:.0f} %)" if 0 < total < math.inf else str(done)
    parts = [f"{label}: {place}"]
    if pace > 0:
        parts.append(f"{pace:.3g}/s")
        if total < math.inf:
            parts.append(f"{clock((total - done) / pace)} left")
    for name, value in values.items():
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)
