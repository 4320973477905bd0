"""The recipe of a training; the paper's (section 3.4) is Adam under a cosine (docs/recipes.md)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from igpt.system import UserError

Optimizer = Literal["adam", "muon"]
Schedule = Literal["cosine", "wsd"]
ADDED = {"optimizer": "adam", "schedule": "cosine"}  # switches that came later: written only where they are not these


@dataclass(frozen=True)
class Recipe:
    """How weights are updated.

    Args:
        learning_rate: peak learning rate.
        betas: of Adam; the paper's are (0.9, 0.95).
        weight_decay: of Adam, or decoupled of Muon's matrices; the paper uses none.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch, as in the paper.
        optimizer: "adam", or "muon" for the matrices of the blocks and AdamW for all else (`igpt.training.Muon`).
        schedule: behind the warm-up "cosine" falls to zero, "wsd" stays and falls to zero in the last fifth.

    Raises:
        UserError: a value that cannot be trained with.
    """

    learning_rate: float = 0.001
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup_steps: int | None = None
    optimizer: Optimizer = "adam"
    schedule: Schedule = "cosine"

    def __post_init__(self) -> None:  # all comparisons are false for NaN
        if not 0 <= self.learning_rate < math.inf:
            raise UserError(f"model.init_args.learning_rate {self.learning_rate} must be a number of at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"model.init_args.betas {list(self.betas)} must lie between 0 and 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"model.init_args.weight_decay {self.weight_decay} must be a number of at least 0")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError(f"model.init_args.warmup_steps {self.warmup_steps} must be at least 0")
        if self.optimizer not in get_args(Optimizer):
            raise UserError(f"model.init_args.optimizer is {self.optimizer!r}; choose adam or muon")
        if self.schedule not in get_args(Schedule):
            raise UserError(f"model.init_args.schedule is {self.schedule!r}; choose cosine or wsd")


def written(init_args: dict[str, Any]) -> dict[str, Any]:
    """Arguments as a checkpoint holds them: without the switches that are as the versions before had them."""
    return {name: value for name, value in init_args.items() if name not in ADDED or value != ADDED[name]}
