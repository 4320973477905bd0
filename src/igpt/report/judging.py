"""When a difference of accuracies counts as seen: the one rule behind all verdicts about differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from igpt.report.statistics import deviation, mean, sampling_error, standard_error

SEEN, NOT_SEEN, CANNOT = "seen", "not seen", "not seen: cannot be told from these runs"


@dataclass(frozen=True)
class Sample:
    """Accuracies of runs of one kind, as shares, and on how many test images each was measured."""

    values: list[float]
    images: int | None


@dataclass(frozen=True)
class Difference:
    """A difference of mean accuracies (a share) and its standard error; None where nothing tells how large it is."""

    value: float
    error: float | None
    source: str

    @property
    def verdict(self) -> str:
        """Whether the difference is positive, beyond its error; one that the error covers cannot be told."""
        if self.error is None or not abs(self.value) > self.error:
            return CANNOT
        return SEEN if self.value > 0 else NOT_SEEN

    def text(self) -> str:
        """Difference, error and where the error comes from, in points."""
        if self.error is None:
            return f"{points(self.value)}, {self.source}"
        return f"{points(self.value)}, standard error {100 * self.error:.1f} ({self.source})"

    def halved_minus(self, other: "Difference") -> "Difference":
        """Half of this difference minus another one."""
        if self.error is None or other.error is None:
            return Difference(self.value / 2 - other.value, None, "standard error not known")
        return Difference(self.value / 2 - other.value, math.hypot(self.error / 2, other.error), "both")


def between(first: Sample, second: Sample) -> Difference:
    """Mean of the first minus mean of the second, for runs that do not belong to each other in pairs."""
    value = mean(first.values) - mean(second.values)
    errors = [standard_error(sample.values) for sample in (first, second)]
    over_runs = None if None in errors else math.hypot(*(error for error in errors if error is not None))
    return settled(value, over_runs, [(mean(sample.values), sample.images) for sample in (first, second)])


def paired(pairs: Sequence[tuple[float, float]], images: int | None) -> Difference:
    """Mean of first minus second, each pair from one run."""
    differences = [first - second for first, second in pairs]
    means = [mean([pair[side] for pair in pairs]) for side in (0, 1)]
    return settled(mean(differences), standard_error(differences), [(share, images) for share in means])


def settled(value: float, over_runs: float | None, measured: list[tuple[float, int | None]]) -> Difference:
    """The difference with the error over runs, or, for single runs and equal ones, of the sampling of test images."""
    if over_runs:
        return Difference(value, over_runs, "over runs")
    why = "single run" if over_runs is None else "all runs equal"
    errors = [sampling_error(share, images) for share, images in measured if images]
    if len(errors) < len(measured):
        return Difference(value, None, f"{why}, number of test images not known")
    return Difference(value, math.hypot(*errors), f"{why}: of the test images")


def points(share: float) -> str:
    """A difference of accuracies in points of a percent."""
    return f"{100 * share:+.1f} points"


def percent(shares: Sequence[float]) -> str:
    """Mean accuracy in percent, with the deviation where there are several."""
    spread = deviation(shares)
    return f"{100 * mean(shares):.1f} %" if spread is None else f"{100 * mean(shares):.1f} ± {100 * spread:.1f} %"


def within(share: float | None) -> str:
    """One accuracy in percent; a dash where there is none."""
    return "—" if share is None else f"{100 * share:.1f} %"
