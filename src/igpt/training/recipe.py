"""The recipe of a training: Adam and its learning rate (paper, section 3.4)."""

import math
from dataclasses import dataclass

from igpt.system import UserError


@dataclass(frozen=True)
class Recipe:
    """How weights are updated.

    Args:
        learning_rate: peak learning rate of Adam.
        betas: of Adam; the paper's are (0.9, 0.95).
        weight_decay: of Adam; the paper uses none.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch, as in the paper.

    Raises:
        UserError: a value that Adam cannot train with.
    """

    learning_rate: float = 0.001
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup_steps: int | None = None

    def __post_init__(self) -> None:  # all comparisons are false for NaN
        if not 0 <= self.learning_rate < math.inf:
            raise UserError(f"model.init_args.learning_rate {self.learning_rate} must be a number of at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"model.init_args.betas {list(self.betas)} must lie between 0 and 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"model.init_args.weight_decay {self.weight_decay} must be a number of at least 0")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError(f"model.init_args.warmup_steps {self.warmup_steps} must be at least 0")
