"""Where a run is, as one line that is refreshed by time."""

import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from igpt.system import UserError


class ProgressLine(ProgressBar):
    """Shows the optimizer steps done of a training or the batches of an evaluation, their pace, and the last values.

    The line is refreshed by time and not by step, so that it costs the same however quick the steps are. On a terminal
    it is written over; in a file each refresh is a line.

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
        self._first, self._since = 0, 0.0  # steps done when the pace began to be measured, and when that was

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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """So many optimizer steps are done."""
        self._advance(self.train_description, trainer.global_step, trainer.max_steps)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One batch further."""
        self.has_dataloader_changed(dataloader_idx)
        label = self.sanity_check_description if trainer.sanity_checking else self.validation_description
        self._advance(label, batch_idx + 1, self.total_val_batches_current_dataloader)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One batch further."""
        self.has_dataloader_changed(dataloader_idx)
        self._advance(self.test_description, batch_idx + 1, self.total_test_batches_current_dataloader)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One batch further."""
        self.has_dataloader_changed(dataloader_idx)
        label = f"{self.predict_description} {dataloader_idx}"
        self._advance(label, batch_idx + 1, self.total_predict_batches_current_dataloader)

    def on_train_end(self, *args: Any) -> None:
        """Show the end."""
        self._finish()

    def on_validation_end(self, *args: Any) -> None:
        """Show the end, unless training goes on."""
        if self.trainer.state.fn == "validate":
            self._finish()

    def on_test_end(self, *args: Any) -> None:
        """Show the end."""
        self._finish()

    def on_predict_end(self, *args: Any) -> None:
        """Show the end."""
        self._finish()

    def on_exception(self, *args: Any) -> None:
        """Leave the line to what is going to be said."""
        self._end_line()

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
            text = text[: shutil.get_terminal_size().columns - 1]
            sys.stdout.write(f"\r{text:{self._width or 1}}")  # over what stands there
            self._width = len(text)
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def _finish(self) -> None:
        if self._label:
            self._show(time.monotonic())
        self._end_line()
        self._label = ""

    def _end_line(self) -> None:
        if self._width:
            sys.stdout.write("\n")
            self._width = 0


def progress_text(label: str, done: int, total: float, pace: float, values: Mapping[str, Any]) -> str:
    """The line: `Training: 40/1095 (4 %), 10.8/s, 1:37 left, train/loss 2.31`.

    Args:
        label: what is going on.
        done: steps or batches.
        total: of them in all; infinite where nobody knows.
        pace: of them a second; 0 where it is not known yet.
        values: what to show, by name.
    """
    place = f"{done}/{total:.0f} ({100 * done / total:.0f} %)" if 0 < total < math.inf else str(done)
    parts = [f"{label}: {place}"]
    if pace > 0:
        parts.append(f"{pace:.3g}/s")
        if total < math.inf:
            minutes, seconds = divmod(round((total - done) / pace), 60)
            parts.append(f"{minutes}:{seconds:02} left")
    parts += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    ]
    return ", ".join(parts)
