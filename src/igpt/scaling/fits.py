"""Fits of an IsoFLOP study: a parabola for each budget, and how its lowest point moves with compute.

For every budget C the loss is fitted as `a + b x + c x^2` in x = log N (Hoffmann et al. 2022, approach 2). Its lowest
point is N*(C); D*(C) are the tokens that the budget leaves to it. Both are fitted as power laws of C.

Intervals are of `igpt.scaling.bootstrap`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from igpt.scaling.bootstrap import Array, Interval, around, drawn

TERMS = 3  # of a parabola


@dataclass(frozen=True)
class Optimum:
    """The best size of one budget.

    Args:
        budget: C, in operations.
        parameters: N*, and its interval; where `edge` is said, the end of the sizes that were trained.
        tokens: D*.
        value: of the parabola there: loss in nats per pixel, or accuracy as a share.
        curve: (a, b, c) of the parabola in x = log N.
        edge: why there is no optimum inside the sizes; None where there is one.
    """

    budget: float
    parameters: float
    parameters_interval: Interval | None
    tokens: float
    value: float
    curve: tuple[float, float, float]
    edge: str | None


@dataclass(frozen=True)
class Law:
    """`factor * C^exponent`, with the interval of the exponent (None where no noise can be told)."""

    factor: float
    exponent: float
    interval: Interval | None


@dataclass(frozen=True)
class StudyFit:
    """All fits of one measure; the laws are None where an optimum lies at the edge, or there is one budget alone."""

    optima: list[Optimum]
    parameters: Law | None
    tokens: Law | None
    freedom: int


def parabola(x: Array, y: Array) -> Array:
    """(a, b, c) of the least squares fit of `a + b x + c x^2`; x and y are `(n,)`, n at least 3."""
    middle = x.mean()  # about which it is well conditioned
    c, b, a = np.polyfit(x - middle, y, 2)
    return np.array([a - b * middle + c * middle**2, b - 2 * c * middle, c])


def lowest(curve: Array) -> float:
    """Where a parabola is lowest; NaN for one that opens downwards."""
    return float(-curve[1] / 2 / curve[2]) if curve[2] > 0 else math.nan


def power_law(compute: Array, values: Array) -> tuple[float, float]:
    """(factor, exponent) of `values = factor * compute^exponent`, by least squares of the logarithms."""
    exponent, start = np.polyfit(np.log(compute), np.log(values), 1)
    return float(np.exp(start)), float(exponent)


def fit_study(
    budgets: Array, parameters: Array, tokens: Array, values: Array, maximise: bool = False, seed: int = 0
) -> StudyFit:
    """Fit everything.

    Args:
        budgets: C of each run, `(n,)`; runs of one budget have equal numbers.
        parameters: N of each run, `(n,)`.
        tokens: D of each run, `(n,)`.
        values: loss of each run, or with `maximise` accuracy, `(n,)`.
        maximise: whether more is better.
        seed: of the bootstrap.

    Raises:
        ValueError: a budget has fewer than three runs.
    """
    levels = np.unique(budgets)
    groups = [budgets == level for level in levels]
    if min(group.sum() for group in groups) < TERMS:
        raise ValueError("a parabola needs three sizes of every budget")
    sign = -1.0 if maximise else 1.0
    logs = [np.log(parameters[group]) for group in groups]
    seen = [sign * values[group] for group in groups]
    curves = [parabola(x, y) for x, y in zip(logs, seen, strict=True)]
    freedom = len(values) - TERMS * len(levels)
    draws = drawn(logs, seen, curves, freedom, seed)  # (draws, budgets), of log N*
    optima = []
    for place, level in enumerate(levels):
        x, curve, group = logs[place], curves[place], groups[place]
        edge = at_edge(x, curve)
        best = lowest(curve) if edge is None else float(x[np.argmin(seen[place])])
        span = None if edge or draws is None else around(best, draws[:, place], freedom)
        optima.append(
            Optimum(
                budget=float(level),
                parameters=math.exp(best),
                parameters_interval=None if span is None else (math.exp(span[0]), math.exp(span[1])),
                tokens=tokens_at(best, x, np.log(tokens[group])),
                value=sign * float(np.polyval(curve[::-1], best)),
                curve=(sign * curve[0], sign * curve[1], sign * curve[2]),
                edge=edge,
            )
        )
    if len(levels) < 2 or any(one.edge for one in optima):
        return StudyFit(optima, None, None, freedom)
    more = None
    if draws is not None:
        pairs = zip(logs, groups, strict=True)
        more = np.stack([line(x, np.log(tokens[group]), draws[:, i]) for i, (x, group) in enumerate(pairs)], axis=1)
    return StudyFit(
        optima,
        law(levels, np.array([one.parameters for one in optima]), draws, freedom),
        law(levels, np.array([one.tokens for one in optima]), more, freedom),
        freedom,
    )


def at_edge(x: Array, curve: Array) -> str | None:
    """Why a parabola has no lowest point between the smallest and the largest size; None where it has."""
    best = lowest(curve)
    if math.isnan(best):
        return "no lowest point: the curve is not hollow"
    if not x.min() < best < x.max():
        return f"at the {'smallest' if best <= x.min() else 'largest'} size or beyond"
    return None


def line(x: Array, y: Array, at: Array | float) -> Any:
    """Log D at log N: within one budget almost a straight line, from which attention and head bend it a little."""
    return np.polyval(parabola(x, y)[::-1], at)


def tokens_at(best: float, x: Array, logs: Array) -> float:
    """D of a size between those that were trained."""
    return float(np.exp(line(x, logs, best)))


def law(levels: Array, optima: Array, draws: Array | None, freedom: int) -> Law:
    """The power law through the optima, and the interval of its exponent by that of each draw."""
    factor, exponent = power_law(levels, optima)
    if draws is None:
        return Law(factor, exponent, None)
    x = np.log(levels) - np.log(levels).mean()
    return Law(factor, exponent, around(exponent, draws @ x / (x @ x), freedom))
