"""Reading checkpoints as data: nothing in the file is executed, and only known classes are built from it."""

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from igpt.data import ImageDataModule
from igpt.errors import UserError
from igpt.modules.base import CHECKPOINT_KEY, PixelModule
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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's content as plain data and tensors on the CPU.

    Raises:
        UserError: not there, cut short, or not a checkpoint of igpt; a pickle with code in it is refused unexecuted.

    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .ckpt file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strange pickles; what cannot be read safely is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is no plain checkpoint: it holds something other than tensors and plain data, which "
            "is refused and was not executed; use a file written by igpt"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"checkpoint {path} cannot be read: it is damaged or cut short; use an earlier one") from error
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content or "state_dict" not in content:
        raise UserError(f"checkpoint {path} was not written by igpt; use a file from runs/NAME/checkpoints")
    return content


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
