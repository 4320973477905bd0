"""Learning rate over time: linear warm-up, then a cosine to zero (paper, section 3.4)."""

import math


def warmup_constant(step: int, warmup_steps: int, start: int = 0) -> float:
    """Share of the peak learning rate at `step` (0-based): rises over `warmup_steps`, then stays (fine-tuning).

    A schedule that begins anew in a resumed run does so at step `start`.
    """
    return min(1.0, (step - start + 1) / max(1, warmup_steps))


def warmup_cosine(step: int, warmup_steps: int, max_steps: int, start: int = 0) -> float:
    """Share of the peak learning rate at `step` (0-based): rises over `warmup_steps`, is 0 from `max_steps` on.

    A schedule that begins anew in a resumed run does so at step `start`.
    """
    top = start + warmup_steps
    if step < top:
        return (step - start + 1) / warmup_steps
    progress = (step - top) / (max_steps - top) if step < max_steps else 1.0
    return 0.5 * (1 + math.cos(math.pi * progress))
