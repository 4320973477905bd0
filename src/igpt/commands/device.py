"""Where a command that needs no trainer runs its network."""

import torch

from igpt.errors import UserError


def device_of(accelerator: str) -> str:
    """The device that a Lightning-like accelerator name stands for.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise UserError(f"--accelerator {accelerator}; choose auto, cpu or gpu")
    if accelerator in ("gpu", "cuda") and not has_gpu:
        raise UserError(f"--accelerator {accelerator}: PyTorch sees no GPU here; use cpu")
    return "cuda" if has_gpu and accelerator != "cpu" else "cpu"
