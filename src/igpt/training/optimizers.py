"""Learning-rate schedules: linear warm-up, then a cosine to zero (paper, section 3.4) or a constant rate."""

import math


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
