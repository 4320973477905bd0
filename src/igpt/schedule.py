"""Learning rate over time: linear warm-up, then a cosine to zero (paper, section 3.4)."""

import math


def warmup_constant(step: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step` (0-based): rises over `warmup_steps`, then stays (fine-tuning)."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


def warmup_cosine(step: int, warmup_steps: int, max_steps: int) -> float:
    """Share of the peak learning rate at `step` (0-based): rises over `warmup_steps`, is 0 from `max_steps` on."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (max_steps - warmup_steps) if step < max_steps else 1.0
    return 0.5 * (1 + math.cos(math.pi * progress))
