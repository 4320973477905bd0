"""How long the runs of a plan take: a few steps of their smallest and largest network, timed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from igpt.model import PixelTransformer, TransformerConfig, next_pixel_loss
from igpt.scaling.plan import Planned

STEPS = 3  # that are timed, after one that is not
START = 10.0  # seconds, assumed, for the two commands of a run to begin


@dataclass(frozen=True)
class Speed:
    """Operations a second by operations a step: a power law through two measured networks, or one rate."""

    costs: tuple[float, float]
    rates: tuple[float, float]

    def seconds(self, run: Planned) -> float:
        """Of all steps of a run, and the start of its commands."""
        (small, large), (slow, quick) = self.costs, self.rates
        cost = cost_of(run)
        power = math.log(quick / slow) / math.log(large / small) if large > small else 0.0
        return float(run.operations / (slow * (cost / small) ** power) + START)


def measured_speed(
    runs: Sequence[Planned], base: TransformerConfig, batch: int, device: str, causal: bool = True
) -> Speed:
    """Time a few training steps in float32 of the networks with the fewest and the most operations a step."""
    ends = [min(runs, key=cost_of), max(runs, key=cost_of)]
    rates = [cost_of(run) / step_seconds(shape_of(run, base), batch, device, causal) for run in ends]
    return Speed((cost_of(ends[0]), cost_of(ends[1])), (rates[0], rates[1]))


def cost_of(run: Planned) -> float:
    """Operations of a step."""
    return run.operations / run.steps


def shape_of(run: Planned, base: TransformerConfig) -> TransformerConfig:
    """The network of a run."""
    return replace(base, n_layers=run.n_layers, d_model=run.d_model, n_heads=run.n_heads)


def step_seconds(shape: TransformerConfig, batch: int, device: str, causal: bool) -> float:
    """Median seconds of a training step on random tokens."""
    network = PixelTransformer(shape).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    tokens = torch.randint(shape.vocab_size, (batch, shape.n_positions), device=device)
    times = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        loss = next_pixel_loss(network(tokens, causal=causal), tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[STEPS // 2]
