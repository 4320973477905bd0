"""The few statistics that the page needs, as pure functions of numbers."""

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

EXACT = 7  # up to so many points all orders are tried; 7! = 5040
DRAWN = 20_000  # orders drawn for more points


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for fewer than two values."""
    spread = deviation(values)
    return None if spread is None else spread / math.sqrt(len(values))


def sampling_error(share: float, images: int) -> float:
    """Standard error of an accuracy that was measured on so many images."""
    return math.sqrt(max(0.0, share * (1 - share)) / images)  # a share may lie above 1 by rounding


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    array = np.asarray(values, dtype=np.float64)
    below = (array[None] < array[:, None]).sum(1)
    equal = (array[None] == array[:, None]).sum(1)
    shared: NDArray[np.float64] = below + (equal + 1) / 2
    return shared


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation; None where all values of one side are equal or there are fewer than two."""
    if len(first) < 2:
        return None
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def chance_of_falling(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of all orders of `second` whose rank correlation with `first` is at most as high as the given order's.

    All orders up to 7 points, 20,000 drawn ones beyond (with a fixed seed, and the given one among them).
    """
    a, b = ranks(first) - (len(first) + 1) / 2, ranks(second)
    if len(a) <= EXACT:
        orders = np.array(list(permutations(range(len(a)))))
    else:
        rng = np.random.default_rng(0)
        drawn = [rng.permutation(len(a)) for _ in range(DRAWN)]
        orders = np.stack([np.arange(len(a)), *drawn])
    return float((b[orders] @ a <= b @ a + 1e-9).mean())
