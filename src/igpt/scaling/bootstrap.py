"""The residual bootstrap: how far noise about the parabolas moves what is fitted.

The residuals of all parabolas together, widened by sqrt(points / degrees of freedom), are drawn with replacement and
added to the fitted curves, and all is fitted again. With four budgets of five points eight degrees of freedom are left,
for which quantiles of the draws are too narrow: an interval is the estimate plus and minus Student's t times the spread
of the draws. Pooling takes the noise to be alike at all budgets.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
DRAWS = 1000
LEVEL = 0.95
MIDDLE = (15.865, 84.135)  # per cent of a normal distribution within one deviation; outliers do not move them


def drawn(logs: list[Array], seen: list[Array], curves: list[Array], freedom: int, seed: int) -> Array | None:
    """Log N* of every budget in each draw of the residual bootstrap, `(draws, budgets)`; NaN where there is none."""
    if freedom < 1:
        return None
    rng = np.random.default_rng(seed)
    fitted = [np.polyval(curve[::-1], x) for x, curve in zip(logs, curves, strict=True)]
    left = np.concatenate([y - of for y, of in zip(seen, fitted, strict=True)])
    left = left * math.sqrt(len(left) / freedom)
    columns = []
    for x, of in zip(logs, fitted, strict=True):
        x, middle = x - x.mean(), x.mean()
        noise = rng.choice(left, (DRAWS, len(x)))
        c, b, _ = np.polyfit(x, (of + noise).T, 2)
        columns.append(np.where(c > 0, middle - b / 2 / np.where(c > 0, c, 1.0), np.nan))
    return np.stack(columns, axis=1)


def around(estimate: float, draws: Array, freedom: int) -> Interval | None:
    """The estimate plus and minus t times the spread of its draws; None where a draw in twenty has no optimum."""
    if np.isnan(draws).mean() > 1 - LEVEL:
        return None
    low, high = np.nanpercentile(draws, MIDDLE)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * (high - low) / 2
    return estimate - reach, estimate + reach
