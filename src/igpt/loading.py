"""From a checkpoint to a module ready for use; only known classes are built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from igpt.checkpoint import CHECKPOINT_KEY, read_checkpoint
from igpt.data import ImageDataModule
from igpt.errors import UserError
from igpt.modules.base import PixelModule
from igpt.plugins import load_plugins, packages
from igpt.spec import build


@dataclass(frozen=True)
class Loaded:
    """A module ready for use, the step it was saved at, and its data as plain data (None if it knew none)."""

    module: PixelModule
    step: int
    data_spec: dict[str, Any] | None

    def data(self) -> ImageDataModule:
        """The data module that the checkpoint was trained on.

        Raises:
            UserError: the checkpoint knows none, or its class is not installed.
        """
        if self.data_spec is None:
            raise UserError("--ckpt: this checkpoint does not say what it was trained on; name the data with --data")
        data: ImageDataModule = build(self.data_spec, ImageDataModule, packages())
        return data


def load(path: str | Path, device: str | torch.device = "cpu") -> Loaded:
    """Build the module that a checkpoint holds, with its weights and palette, in evaluation mode.

    Raises:
        UserError: see `read_checkpoint`; or the weights do not fit the class and arguments that the file names.
    """
    load_plugins()
    content = read_checkpoint(path)
    header = content[CHECKPOINT_KEY]
    module: PixelModule = build(header["model"], PixelModule, {"igpt"})
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"checkpoint {path}: the weights do not fit the model it names ({reason})") from error
    return Loaded(module.to(device).eval(), int(content.get("global_step", 0)), header.get("data"))
