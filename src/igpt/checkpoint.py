"""Reading checkpoint files as data: nothing in them is executed."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from igpt.errors import UserError

CHECKPOINT_KEY = "igpt"  # under this key stand model and data as plain data


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
