"""The file from which a killed probe goes on, bit for bit."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from igpt.checkpoints import CHECKPOINT_KEY, read_checkpoint, weights_sha256
from igpt.data import ImageDataModule
from igpt.probing.protocol import Group, Probed, ProbeTask
from igpt.system import UserError, atomic_path, remove_own

EVERY_S = 1.0  # seconds between two states; epochs that a kill takes away come again, to the bit


@dataclass
class Unfinished:
    """The state of a probe that is being trained.

    Args:
        path: its file.
        header: of what it is, from `header_of`.
        parts: the state's entries and their types.
    """

    path: Path
    header: dict[str, Any]
    parts: dict[str, type]
    written: float = -math.inf  # when, by the monotonic clock

    def write(self, state: Callable[[], dict[str, Any]], last: bool) -> None:
        """Replace the file after an epoch, the last one or where `EVERY_S` have passed since it was written."""
        if not last and time.monotonic() - self.written < EVERY_S:
            return
        with atomic_path(self.path) as path:
            torch.save({CHECKPOINT_KEY: self.header, **state()}, path)
        self.written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The state to resume from; None where there is none, or that of a finished probe of something else.

        Raises:
            UserError: the file is damaged, not a probe's state, or that of another unfinished probe.
        """
        path = self.path
        if not path.exists():
            return None
        content = read_checkpoint(path)
        found, wanted = (head["model"]["init_args"] for head in (content[CHECKPOINT_KEY], self.header))
        of_a_probe = content[CHECKPOINT_KEY]["model"]["class_path"] == self.header["model"]["class_path"]
        if not of_a_probe or not all(isinstance(content.get(name), kind) for name, kind in self.parts.items()):
            raise UserError(f"{path} is no state of a probe; delete it or change --out")
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if not differing:
            return content
        if content["epochs_done"] == found.get("epochs"):
            return None
        raise UserError(
            f"{path}: an unfinished probe with another {', '.join(differing)}; finish it, delete it or change --out"
        )


def header_of(
    class_path: str, module: Probed, data: ImageDataModule, recipe: Any, precision: str, source: str
) -> dict[str, Any]:
    """The file's header: network, data and recipe; `source` is "images", or the type of stored features."""
    spec = data.spec()
    spec["init_args"].pop("num_workers", None)
    about = {
        "network": weights_sha256(module.core.spec(), module.core.state_dict()),
        "data": spec,
        "precision": precision,
        "source": source,
    }
    plain = {**asdict(recipe), "rates": list(recipe.rates)}
    return {"format": 1, "model": {"class_path": class_path, "init_args": {**plain, **about}}}


def state_folder(method: str, task: ProbeTask, groups: list[Group]) -> Path:
    """Where a killed probe of these groups is resumed from."""
    layers = sorted({layer for group in groups for layer in group})
    return task.folder / method / "_".join(["layers", *map(str, layers)])


def forget(method: str, task: ProbeTask, groups: list[Group]) -> None:
    """Remove the state of one training, and nothing else."""
    remove_own(state_folder(method, task, groups), (f"{method}.ckpt", f".{method}.*.ckpt"))
    remove_own(task.folder / method, ())
