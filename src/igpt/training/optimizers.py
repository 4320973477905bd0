"""The optimizer and the learning-rate schedule of a recipe; the paper's are Adam and a cosine to zero (section 3.4)."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from igpt.model import PixelTransformer
from igpt.training.muon import Muon
from igpt.training.recipe import Recipe

DECAY = 0.2  # share of a run at whose end "wsd" brings the rate to zero; Hägele et al. 2024 find 0.1 to 0.2 enough


def warmup_constant(step: int, warmup_steps: int, start: int = 0) -> float:
    """Multiplier of the peak rate: rises linearly over `warmup_steps`, then stays 1 (fine-tuning).

    Args:
        step: from 0.
        warmup_steps: optimizer steps.
        start: where the schedule begins: above 0 in a resumed run that restarts it.
    """
    return min(1.0, (step - start + 1) / max(1, warmup_steps))


def warmup_cosine(step: int, warmup_steps: int, max_steps: int, start: int = 0) -> float:
    """Multiplier of the peak rate: rises linearly over `warmup_steps`, then falls as half a cosine to 0 at `max_steps`.

    Args: as of `warmup_constant`.
    """
    top = start + warmup_steps
    if step < top:
        return (step - start + 1) / warmup_steps
    progress = (step - top) / (max_steps - top) if step < max_steps else 1.0
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmup_stable_decay(step: int, warmup_steps: int, max_steps: int, start: int = 0) -> float:
    """Multiplier of the peak rate: linear warm-up, then 1, and in the last fifth `1 - sqrt(progress)` to 0.

    Until the decay begins, `max_steps` does not matter: a run can go on from there to another end.

    Args: as of `warmup_constant`.
    """
    length = max(1, round(DECAY * (max_steps - start)))
    progress = min(max(0, step - max_steps + length) / length, 1.0)
    return warmup_constant(step, warmup_steps, start) * (1 - math.sqrt(progress))


def schedule_of(name: str, warmup_steps: int, max_steps: int, start: int) -> Callable[[int], float]:
    """Multiplier of the peak rate by step, by the name of a schedule."""
    if name == "constant":
        return partial(warmup_constant, warmup_steps=warmup_steps, start=start)
    shape = {"cosine": warmup_cosine, "wsd": warmup_stable_decay}[name]
    return partial(shape, warmup_steps=warmup_steps, max_steps=max_steps, start=start)


def matrices_of(transformer: PixelTransformer) -> Iterator[tuple[Tensor, int]]:
    """The projections of the blocks, each with the number of matrices in it: queries, keys and values are three."""
    for block in transformer.blocks:
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                yield module.weight, module.out_features // module.in_features if name == "attn.qkv" else 1


def make_optimizer(
    recipe: Recipe,
    parameters: Iterable[nn.Parameter],
    transformer: PixelTransformer | None,
    fused: bool = True,
    dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """The optimizer of a recipe, for the parameters that are trained.

    Args:
        parameters: all of them, those of the transformer included.
        transformer: whose matrices Muon takes; Adam needs none.
        fused: whether Adam is, which Lightning does not let be where it clips gradients.
        dtype: in which Muon makes matrices orthogonal.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    options = {"lr": recipe.learning_rate, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(trained, fused=fused, **options)  # type: ignore[arg-type]
    assert transformer is not None
    matrices = [(weight, parts) for weight, parts in matrices_of(transformer) if weight.requires_grad]
    known = {id(weight) for weight, _ in matrices}
    others = [parameter for parameter in trained if id(parameter) not in known]
    return Muon(matrices, others, dtype=dtype, **options)  # type: ignore[arg-type]
