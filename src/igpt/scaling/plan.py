"""The plan of an IsoFLOP study: which sizes are trained for how many steps, so that all of a budget cost the same."""

import math
from dataclasses import dataclass, replace

from igpt.model import TransformerConfig, forward_operations, parameter_count
from igpt.system import UserError

WARMUP = 0.05  # share of a run's steps; the paper's one epoch would be longer than many of these runs
LARGEST_HEADS = 4096  # of the ladder of widths, so that it ends


@dataclass(frozen=True)
class Planned:
    """One training of a study.

    Args:
        name: of its run, such as `c1_d48`.
        budget: compute that it may take, in operations.
        n_layers, d_model, n_heads: of its network.
        parameters: N, all of them, embeddings and head included.
        steps: optimizer steps, as many as the budget allows.
        warmup: of these, steps of linear warm-up.
        tokens: D, pixels that it is trained on, each as often as it is seen.
        operations: that it takes; below `budget` by less than a step.
    """

    name: str
    budget: float
    n_layers: int
    d_model: int
    n_heads: int
    parameters: int
    steps: int
    warmup: int
    tokens: int
    operations: int


def training_operations(shape: TransformerConfig, images: int, causal: bool = True) -> int:
    """Operations of training on so many images: `3 * forward_operations`, the backward pass taking twice the forward's.

    Written out, with N' = 12 L D^2 the weights of the blocks, T tokens an image and V colours, that is
    `images * T * (6 N' + 6 L T D + 6 D V)` for AR (`12 L T D` for BERT): six a weight and token, attention, the head.
    """
    return 3 * images * forward_operations(shape, causal)


def geometric(smallest: float, largest: float, count: int) -> list[float]:
    """`count` numbers from `smallest` to `largest`, each the same multiple of the one before."""
    ratio = largest / smallest
    return [smallest * ratio ** (index / (count - 1)) for index in range(count)]


def candidates(base: TransformerConfig, largest: float) -> list[TransformerConfig]:
    """Networks of 1, 2, 3 ... heads of the base's head width, depth to width as in the base.

    Up to `largest` parameters; one larger ends the list, so that the nearest to any number below it is there.
    """
    head, aspect, found = base.d_model // base.n_heads, base.d_model / base.n_layers, list[TransformerConfig]()
    for heads in range(1, LARGEST_HEADS):
        width = heads * head
        shape = replace(base, n_heads=heads, d_model=width, n_layers=max(1, round(width / aspect)))
        found.append(shape)
        if parameter_count(shape) > largest:
            break
    return found


def plan(
    base: TransformerConfig,
    budgets: list[float],
    sizes: int,
    batch: int,
    causal: bool = True,
    ratios: tuple[float, float] = (5, 500),
) -> list[Planned]:
    """The trainings of a study, budget by budget from the smallest, sizes from the smallest.

    Sizes of a budget C lie evenly in log N between those that see `ratios` tokens a parameter, by C = 6 N D: the same
    range about an optimum that grows with the root of compute. Each is the nearest network of `candidates` not taken.

    Args:
        base: gives head width, aspect and all that is not a size.
        budgets: operations of each run.
        sizes: networks of each budget.
        batch: images a step.
        causal: AR; attention of BERT takes twice the operations.
        ratios: tokens a parameter of the largest and of the smallest network.

    Raises:
        UserError: a budget does not allow `sizes` networks one step each.
    """
    most = max(math.sqrt(budget / 6 / ratios[0]) for budget in budgets)
    ladder = candidates(base, most)
    counts = [parameter_count(shape) for shape in ladder]
    costs = [training_operations(shape, batch, causal) for shape in ladder]
    planned: list[Planned] = []
    for number, budget in enumerate(budgets, 1):
        free = [index for index, cost in enumerate(costs) if cost <= budget]
        if len(free) < sizes:
            raise UserError(
                f"--smallest: a budget of {budget:.3g} operations allows only {len(free)} sizes one step of {batch} "
                f"images or more (the smallest takes {costs[0]:.3g} a step); give a larger one, or fewer --sizes"
            )
        low, high = (math.sqrt(budget / 6 / ratio) for ratio in reversed(ratios))
        wanted = geometric(low, high, sizes)
        for index in sorted(nearest(wanted, counts, free)):
            planned.append(of_budget(number, budget, ladder[index], batch, causal))
    return planned


def nearest(wanted: list[float], counts: list[int], free: list[int]) -> list[int]:
    """For each wanted number the index, of those that are `free`, whose count is nearest in log and not taken yet."""
    chosen: list[int] = []
    for number in wanted:
        left = [index for index in free if index not in chosen]
        chosen.append(min(left, key=lambda index: abs(math.log(counts[index] / number))))
    return chosen


def of_budget(number: int, budget: float, shape: TransformerConfig, batch: int, causal: bool) -> Planned:
    """The training of one network under the budget of this number."""
    cost = training_operations(shape, batch, causal)
    steps = int(budget // cost)
    return Planned(
        name=f"c{number}_d{shape.d_model}",
        budget=budget,
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        parameters=parameter_count(shape),
        steps=steps,
        warmup=max(1, round(WARMUP * steps)),
        tokens=steps * batch * shape.n_positions,
        operations=steps * cost,
    )
