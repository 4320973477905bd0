"""Muon for the matrices of the blocks, AdamW for all else, in one optimizer.

Muon (Jordan et al. 2024) steps along the orthogonal matrix nearest to the momentum, so that all of its directions move
by the same amount. PyTorch has one too (`torch.optim.Muon`, to which a test holds this one). It takes one matrix after
the other, always in bfloat16, which costs a CPU without bfloat16 a hundred times the step, knows no part of a matrix,
and needs a second optimizer for what is no matrix.

Shapes: N matrices at once, O outputs, I inputs.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

QUINTIC = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5 takes singular values from 0.01 on to about 1 ...
ITERATIONS = 5  # ... in so many steps: between 0.7 and 1.2
SMALLEST = 1e-7  # norm that is divided by
LIKE_ADAM = 0.2  # root mean square of Adam's steps in units of the rate; Liu et al. 2025, section 2.2
TOGETHER = 2**24  # numbers in one stack of matrices


class Muon(torch.optim.Optimizer):
    """Muon and AdamW with one learning rate: Muon's steps are scaled to the size of Adam's (Liu et al. 2025).

    Args:
        matrices: weights `(O, I)`, each with the number of equal parts of its rows that are made orthogonal by
            themselves: 3 of a projection to queries, keys and values.
        others: parameters for AdamW, without weight decay.
        lr: learning rate of both.
        betas: of Adam.
        weight_decay: decoupled, of the matrices.
        momentum: of Muon, as Nesterov's.
        dtype: in which matrices are made orthogonal; bfloat16 is exact enough where it is quick.
    """

    def __init__(
        self,
        matrices: Iterable[tuple[Tensor, int]],
        others: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        by_parts: dict[int, list[Tensor]] = defaultdict(list)
        for weight, parts in matrices:
            by_parts[parts].append(weight)
        groups: list[dict[str, Any]] = [{"params": held, "parts": parts} for parts, held in sorted(by_parts.items())]
        groups.append({"params": list(others), "parts": 0, "weight_decay": 0.0})
        defaults = {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([group for group in groups if group["params"]], defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps: dict[torch.Size, list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for group in self.param_groups:
            if not group["parts"]:
                self._step_others(group)
            for weight in group["params"] if group["parts"] else ():
                for part, step in self._parts(weight, group):
                    wide, turned = (step.T, part.T) if step.shape[0] > step.shape[1] else (step, part)
                    steps[wide.shape].append((turned, wide, group["lr"]))
        for shape, held in steps.items():
            count = max(1, TOGETHER // shape.numel())
            for first in range(0, len(held), count):
                self._move(held[first : first + count])
        return loss

    def _parts(self, weight: Tensor, group: dict[str, Any]) -> Iterable[tuple[Tensor, Tensor]]:
        """Parts of a weight, decayed, each with the momentum along which it is to step."""
        if weight.grad is None:
            return ()
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        parts = weight.chunk(group["parts"]), weight.grad.lerp(mean, momentum).chunk(group["parts"])
        return zip(*parts, strict=True)

    def _move(self, held: list[tuple[Tensor, Tensor, float]]) -> None:
        """Step parts of one shape, all at once."""
        directions = orthogonal(torch.stack([step for _, step, _ in held]).to(self.dtype))
        for (part, _, rate), direction in zip(held, directions, strict=True):
            part.add_(direction, alpha=-rate * LIKE_ADAM * math.sqrt(max(part.shape)))

    def _step_others(self, group: dict[str, Any]) -> None:
        """AdamW."""
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in moved:
            if not (state := self.state[parameter]):
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        kept = ([self.state[one][name] for one in moved] for name in ("exp_avg", "exp_avg_sq", "step"))
        means, squares, counts = kept
        beta1, beta2 = group["betas"]
        adamw(
            moved, [one.grad for one in moved], means, squares, [], counts,
            amsgrad=False, maximize=False, fused=True,
            beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
        )  # fmt: skip


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each of `(N, O, I)`, O <= I: its singular values become 0.7 to 1.2.

    Newton-Schulz iterations: products of matrices alone, in the type of the input.
    """
    a, b, c = QUINTIC
    x: Tensor = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, O, O)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
