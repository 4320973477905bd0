"""Stops a run on NaN, infinity or a lasting spike of the training loss; `result.json` says how each run ended."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.system import UserError, atomic_path

OFTEN = 50  # steps between two looks where the trainer never logs


class LossWatch:
    """The stopping rule: a loss that is not finite, or above the lowest one `patience` times in a row.

    Above is above both `factor * minimum` and `minimum + margin`: a factor alone is too strict near zero, and a margin
    alone while the loss is large.
    """

    def __init__(self, factor: float, margin: float, patience: int) -> None:
        self.factor, self.margin, self.patience = factor, margin, patience
        self.minimum, self.above = math.inf, 0
        self.wrong_from = 0  # the step of the first of the losses that count as above

    def see(self, loss: float, step: int = 0) -> str | None:
        """The reason to stop after the loss of this step, or None."""
        finite, limit = math.isfinite(loss), max(self.factor * self.minimum, self.minimum + self.margin)
        if finite and not loss > limit:
            self.minimum, self.above = min(self.minimum, loss), 0
            return None
        self.wrong_from = self.wrong_from if self.above else step
        self.above += 1
        if not finite:
            return f"the training loss became {loss}"
        return f"the training loss rose to {loss:.4g} from {self.minimum:.4g}" if self.above >= self.patience else None


class LossGuard(pl.Callback):
    """Stops a run on NaN, infinity or a lasting spike of the training loss (for `igpt tune`; paper, section 3.4).

    A line then names the last checkpoint from before the loss went wrong; the end is not saved, and `igpt fit` ends
    with exit code 76. Losses stay on their device until the next log point, and are looked at before every checkpoint:
    the run goes on for some steps behind the one that stops it, but no checkpoint is written in between.

    At the end, `result.json` says how the run ended: `val_loss` (the last one, nats per pixel; null if there was none
    or it is not finite), `val_step`, `steps`, and `stopped`, the reason or null.

    Args:
        factor: a spike is above this many times the lowest loss so far ...
        margin: ... and above the lowest loss by this much, in nats per pixel ...
        patience: ... for so many steps in a row.
        every_n_steps: optimizer steps between two looks; None is the trainer's `log_every_n_steps`.
        out: file to write; `result.json` in the run's folder if left out.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        factor: float = 1.5,
        margin: float = 0.3,
        patience: int = 10,
        every_n_steps: int | None = None,
        out: str | None = None,
    ) -> None:
        if not (factor >= 1 and margin >= 0 and patience >= 1 and (every_n_steps is None or every_n_steps >= 1)):
            raise UserError("LossGuard: factor, patience and every_n_steps must be at least 1, margin at least 0")
        self.factor = factor
        self.margin = margin
        self.patience = patience
        self.every_n_steps = every_n_steps
        self.out = out
        self._begin()

    def _begin(self) -> None:
        self.stopped: str | None = None
        self.val_loss: float | None = None
        self.val_step: int | None = None
        self._watch = LossWatch(self.factor, self.margin, self.patience)
        self._unseen: list[tuple[int, Tensor]] = []  # steps done before each loss, and the loss
        self._steps_before = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew; a checkpoint is loaded after this."""
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        """All that later decisions depend on, so that a resumed run is stopped where the whole one would be."""
        watch, unseen = self._watch, together(self._unseen)
        steps = [watch.wrong_from] * bool(watch.above) + [step for step, _ in self._unseen]
        state = {"minimum": watch.minimum, "above": watch.above, "unseen": unseen, "steps": steps}
        return state | {"val_loss": self.val_loss, "val_step": self.val_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on watching from there."""
        watch, steps, unseen = self._watch, state_dict["steps"], state_dict["unseen"]
        watch.minimum, watch.above = state_dict["minimum"], state_dict["above"]
        watch.wrong_from = steps[0] if watch.above else 0
        self._unseen = list(zip(steps[len(steps) - len(unseen) :], map(torch.tensor, unseen), strict=True))
        self.val_loss, self.val_step = state_dict["val_loss"], state_dict["val_step"]

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Remember which step's weights this loss is of."""
        self._steps_before = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        """Keep the loss on its device; look at the kept ones now and then."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._unseen.append((self._steps_before, loss.detach().float()))
        every = self.every_n_steps or trainer.log_every_n_steps or OFTEN  # type: ignore[attr-defined]
        if trainer.global_step > self._steps_before and trainer.global_step % every == 0:
            self.look(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Remember the newest validation loss."""
        if not trainer.sanity_checking and "val/loss" in trainer.callback_metrics:
            self.val_loss, self.val_step = float(trainer.callback_metrics["val/loss"]), trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last losses, before the end is saved."""
        self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Look at the losses not seen yet, and stop the run if it is lost; all processes must call this."""
        if self.stopped is not None or not self._unseen:
            return
        reason = self._look()
        if trainer.strategy.reduce_boolean_decision(reason is not None, all=False):  # all processes stop, or none
            self.stopped = f"{reason or 'another process stopped'} by step {trainer.global_step}"
            trainer.should_stop = True

    def _look(self) -> str | None:
        seen, losses = self._unseen, together(self._unseen)
        self._unseen = []
        reasons = (self._watch.see(loss, step) for (step, _), loss in zip(seen, losses, strict=True))
        return next(filter(None, reasons), None)

    @property
    def wrong_from(self) -> int:
        """Of a stopped run: the first step whose weights gave a loss that led to the stop."""
        return self._watch.wrong_from

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the result, on the main process."""
        folder = trainer.log_dir
        if not trainer.is_global_zero or trainer.fast_dev_run or not (self.out or folder):  # type: ignore[attr-defined]
            return
        val_loss, stopped = self.val_loss, self.stopped
        if val_loss is not None and not math.isfinite(val_loss):
            val_loss, stopped = None, stopped or f"the validation loss became {val_loss}"
        result = {"val_loss": val_loss, "val_step": self.val_step, "steps": trainer.global_step, "stopped": stopped}
        with atomic_path(self.out or Path(str(folder)) / "result.json") as path:
            path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def together(unseen: list[tuple[int, Tensor]]) -> list[float]:
    """The losses as numbers, read from the device at once; those of a checkpoint are moved there first."""
    losses = [loss.to(unseen[-1][1].device) for _, loss in unseen]
    return torch.stack(losses).tolist() if losses else []
