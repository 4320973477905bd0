"""A callback for tests that puts something real in the way of a checkpoint, put into a run by `--trainer.callbacks`."""

import json
import os

import lightning.pytorch as pl

from igpt.callbacks import StepCheckpoint
from igpt.system.files import partial_path


class Obstacle(pl.Callback):
    """Has the first process fail at the checkpoint behind a step.

    Args:
        at: by the number of optimizer steps: "part", its folder cannot be made; "meta", what stands beside the weights
            cannot be written, which only the first process tries; "name", the folder cannot get its name, which an
            earlier one has; "link", `last.ckpt` cannot be replaced.
    """

    def __init__(self, at: dict[int, str]) -> None:
        self.at = at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Lightning calls this before it calls callbacks that save."""
        if trainer.is_global_zero and trainer.global_step in self.at:
            folder = next(callback for callback in trainer.callbacks if isinstance(callback, StepCheckpoint)).folder
            path = folder / f"step={trainer.global_step:07d}.ckpt"
            folder.mkdir(parents=True, exist_ok=True)
            getattr(self, self.at.pop(trainer.global_step))(path)

    def part(self, path):
        """A file where the folder is written."""
        partial_path(path).touch()

    def meta(self, path):
        """A folder where the file is written."""
        (partial_path(path) / "meta.pt").mkdir(parents=True)

    def name(self, path):
        """An earlier checkpoint that cannot be moved aside."""
        (path / "earlier").mkdir(parents=True)
        (path.with_name(f".{path.stem}.{os.getpid()}.old{path.suffix}") / "full").mkdir(parents=True)

    def link(self, path):
        """A folder where the link is."""
        last = path.with_name("last.ckpt")
        last.unlink(missing_ok=True)
        (last / "full").mkdir(parents=True)


def obstacles(at: dict[int, str]) -> list[str]:
    """The option that puts `Obstacle` into a run."""
    return ["--trainer.callbacks+", json.dumps({"class_path": "tests.obstacles.Obstacle", "init_args": {"at": at}})]
