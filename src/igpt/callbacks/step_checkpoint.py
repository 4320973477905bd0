"""Checkpoints at regular steps, at named steps and at the end; `last.ckpt` always points to the newest."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import proxy

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.checkpoint.api import CheckpointException

from igpt.callbacks.loss_guard import LossGuard
from igpt.checkpoints import LAST, newest_intact, original, remove_checkpoint, step_checkpoints, step_path, write_sums
from igpt.system import UserError, complain, last_line, link_last, partial_path, remove_partial, same_file, take_place
from igpt.training import dump_checkpoint, is_accumulating, saves_sharded


class StepCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/step=NNNNNNN.ckpt` into the run's folder and links `last.ckpt` to the newest.

    A checkpoint is written between optimizer steps only, so that a resumed run repeats the very steps that would have
    followed. The last step is saved when validation is over and all is logged; a run that `LossGuard` stopped does not
    save its end. A sharded checkpoint is a folder, which gets its name when all of it is on the disk.

    Args:
        every_n_train_steps: optimizer steps between checkpoints; 0 is none; the last step is always saved.
        dirpath: folder to write to; `runs/NAME/checkpoints` if left out.
        at_steps: steps to save at besides, such as 65536, 131072, 262144, 524288, the points of the paper's curve of
            accuracy against loss (section 4.2).
        keep: how many of the newest to keep; None is all. Those of `at_steps` always stay, and do not count.

    Raises:
        UserError: a step or number below 1; or the end of the training could not be written.
    """

    def __init__(
        self,
        every_n_train_steps: int = 1000,
        dirpath: str | None = None,
        at_steps: list[int] | None = None,
        keep: int | None = None,
    ) -> None:
        if at_steps and min(at_steps) < 1:
            raise UserError(f"checkpoint.at_steps {min(at_steps)}: steps are counted from 1; give steps of at least 1")
        if keep is not None and keep < 1:
            raise UserError(f"checkpoint.keep {keep} must be at least 1; leave it out to keep all")
        super().__init__(
            dirpath=dirpath,
            filename="{step:07d}",
            every_n_train_steps=every_n_train_steps,
            save_top_k=-1,
            save_last="link",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.every_n_train_steps = every_n_train_steps
        self.at_steps = at_steps
        self.keep = keep
        self._began = 0  # the step that this training goes on from
        self._tried = -1  # the step that was last saved, or could not be
        self._written: set[int] = set()  # steps of which this training has a checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*exists and is not empty")  # of an earlier run, or gone on with
            super().setup(trainer, pl_module, stage)

    @property
    def folder(self) -> Path:
        """Where the checkpoints are; known from `setup` on."""
        assert self.dirpath is not None
        return Path(self.dirpath)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the checkpoint that a resumed run comes from as saved; remove what killed writers have left."""
        step = trainer.global_step
        resumed = trainer.ckpt_path is not None and same_file(Path(trainer.ckpt_path), step_path(self.folder, step))
        self._began, self._tried, self._written = step, step if resumed else -1, {step} if resumed else set()
        if trainer.is_global_zero:
            remove_partial(self.folder)

    def owns(self, step: int) -> bool:
        """Whether a step's checkpoint is of this training, and not left by one that once went on from further back."""
        return step <= self._began or step in self._written

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save at the interval and at the named steps; never while gradients are being accumulated."""
        step, every = trainer.global_step, self.every_n_train_steps
        if is_accumulating(trainer) or step >= trainer.max_steps > 0:
            return
        due = (every and step % every == 0) or step in (self.at_steps or ())
        if due and not stopping_guard(trainer, look=True):
            self.save(trainer)

    def on_validation_end(self, *args: Any) -> None:
        """Save nothing: `ModelCheckpoint` would."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end, which rarely falls on a multiple of the interval; without it the run was for nothing."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if guard := stopping_guard(trainer):
            if trainer.is_global_zero:
                good = newest_intact(self.folder, lambda step: step < guard.wrong_from and self.owns(step))
                complain(f"igpt fit: {guard.stopped}; the last good checkpoint: {good or 'none'}")
            return
        if self.save(trainer) is None and trainer.is_global_zero:
            path = step_path(self.folder, trainer.global_step)
            raise UserError(f"checkpoint {path}: the end of the training could not be written; {self.to_go_on()}")

    def save(self, trainer: pl.Trainer) -> Path | None:
        """Save this step unless that has been done, link `last.ckpt` and remove old ones; all processes must call this.

        Returns:
            The checkpoint, in the main process; None in the others, and where it could not be written.
        """
        step = trainer.global_step
        path = step_path(self.folder, step)
        if trainer.fast_dev_run or self._tried == step:  # type: ignore[attr-defined]
            return path if step in self._written else None
        for logger in trainer.loggers:
            logger.save()  # what led here must not be lost when the run goes on from here
        self.best_model_path, self.last_model_path = str(path), str(self.folder / LAST)
        known = identity(path)
        if saves_sharded(trainer):
            self._save_sharded(trainer, path)
        else:
            trainer.save_checkpoint(path, weights_only=False)
        self._tried = step
        if not trainer.is_global_zero or identity(path) == known:
            return None
        self._written.add(step)
        for logger in trainer.loggers:
            logger.after_save_checkpoint(proxy(self))
        self._make_newest(path)
        return path

    def _make_newest(self, path: Path) -> None:
        """Link `last.ckpt` to a new checkpoint, then remove old ones; where that fails, say so and go on."""
        try:
            link_last(path, self.folder / LAST)
            for old in superseded(self.folder, self.keep, self.at_steps or [], self.owns):
                remove_checkpoint(old)
        except OSError as error:
            complain(
                f"igpt: {path} is written, but {LAST} could not be linked to it or older ones not removed "
                f"({error.strerror or error}); training goes on"
            )

    def _save_sharded(self, trainer: pl.Trainer, path: Path) -> None:
        """Have every process write its file, then give the folder its name; a failure is as in `WholeCheckpoints`.

        Wherever it happens, all processes go on together, and what stood under the name before is untouched.
        """
        written = Path(trainer.strategy.broadcast(str(partial_path(path))))
        content = dump_checkpoint(trainer)
        failure = (
            failure_of_any(trainer, lambda: written.mkdir(parents=True, exist_ok=True))
            or failure_of_any(trainer, lambda: trainer.strategy.save_checkpoint(content, written))
            or failure_of_any(trainer, lambda: write_sums(written, trainer.global_rank))
            or failure_of_any(trainer, lambda: take_place(written, path, True) if trainer.is_global_zero else None)
        )
        if failure is not None and trainer.is_global_zero:
            shutil.rmtree(written, ignore_errors=True)
            complain(f"igpt: {path} could not be written ({failure}); training goes on")

    def to_go_on(self) -> str:
        """What to do after a failed write."""
        last = self.folder / LAST
        if not last.exists():
            return "make room and start again"
        return f"{original(last).name} is intact: make room and go on from there with --ckpt_path last"


def stopping_guard(trainer: pl.Trainer, look: bool = False) -> LossGuard | None:
    """The guard that has stopped this run, if one has; with `look`, once they have looked at every loss up to now.

    All processes must look at the same steps.
    """
    guards = [callback for callback in trainer.callbacks if isinstance(callback, LossGuard)]  # type: ignore[attr-defined]
    for guard in guards if look else ():
        guard.look(trainer)
    return next((guard for guard in guards if guard.stopped), None)


def failure_of_any(trainer: pl.Trainer, work: Callable[[], object]) -> str | None:
    """Do this process' part of a work on files, and meet the others; what went wrong in any of them, or None."""
    reason = None
    try:
        work()
    except (CheckpointException, OSError, RuntimeError) as error:  # torch's own, and torch's word for a failed write
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = getattr(cause, "strerror", None) or last_line(cause)
    if not trainer.strategy.reduce_boolean_decision(reason is not None, all=False):
        return None
    return trainer.strategy.broadcast(reason) or "another process could not write its part"


def identity(path: Path) -> tuple[int, int] | None:
    """Inode and modification time, which tell a file or folder from an earlier one of its name; None without one."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def superseded(folder: Path, keep: int | None, always: list[int], owns: Callable[[int], bool]) -> list[Path]:
    """Step checkpoints to remove: all but those of the steps `always`, and the `keep` newest (None is all).

    Newest is what has the highest step, since clocks may be wrong; steps that this training does not own count as
    oldest. What `last.ckpt` stands for is never among them.
    """
    if keep is None:
        return []
    found = step_checkpoints(folder)
    order = sorted((step for step in found if step not in always), key=lambda step: (owns(step), step), reverse=True)
    return [found[step] for step in order[keep:] if not same_file(found[step], folder / LAST)]
