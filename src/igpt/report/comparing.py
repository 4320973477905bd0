"""Which runs can be compared with which, and the significance rule behind every verdict about a difference.

Two accuracies differ if their difference exceeds its standard error: over the runs (seeds) of each side, or, of single
runs, of the sampling of their test images.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from igpt.report.schema import Network, Probe, Run

SEEN, NOT_SEEN, CANNOT = "seen", "not seen", "not seen: cannot be told from these runs"
METHODS = ("lbfgs", "sgd", "knn")  # the order in which a method that both sides have is looked for
CORES = ("AR", "BERT")
VOTES = 5


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two values."""
    return stdev(values) if len(values) > 1 else None


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    array = np.asarray(values, dtype=np.float64)
    below, equal = (array[None] < array[:, None]).sum(1), (array[None] == array[:, None]).sum(1)
    return np.asarray(below + (equal + 1) / 2)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation; None where all values of one side are equal or there are fewer than two."""
    if min(len(set(first)), len(set(second))) < 2:
        return None
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def chance_of_falling(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of all orders of `second` whose rank correlation with `first` is at most as high as the given order's.

    All orders up to 7 points, 20,000 drawn ones beyond (with a fixed seed, and the given one among them).
    """
    a, b = ranks(first) - (len(first) + 1) / 2, ranks(second)
    rng = np.random.default_rng(0)
    drawn = (rng.permutation(len(a)) for _ in range(20_000))
    orders = np.array(list(permutations(range(len(a)))) if len(a) <= 7 else [np.arange(len(a)), *drawn])
    return float((b[orders] @ a <= b @ a + 1e-9).mean())


class Difference(NamedTuple):
    """A difference of mean accuracies (a share) and its standard error; None where nothing tells how large it is."""

    value: float
    error: float | None
    source: str = ""

    @property
    def verdict(self) -> str:
        """Whether the difference is positive, beyond its error; one that the error covers cannot be told."""
        if self.error is None or not abs(self.value) > self.error:
            return CANNOT
        return SEEN if self.value > 0 else NOT_SEEN

    def text(self) -> str:
        """Difference, error and where the error comes from, in points."""
        source = self.source if self.error is None else f"standard error {100 * self.error:.1f} ({self.source})"
        return f"{points(self.value)}, {source}"


def difference(sides: Sequence[Sequence[float]], images: int | None, paired: bool = False) -> Difference:
    """Mean of the first side minus mean of the second, with the error over runs, else of the sampling of test images.

    Args:
        sides: accuracies of two sides, one a run.
        images: size of the test split they were measured on.
        paired: whether each run gave one to both.
    """
    means = [fmean(side) for side in sides]
    samples = [[a - b for a, b in zip(*sides, strict=True)]] if paired else sides
    spreads = [(stdev(sample) / math.sqrt(len(sample))) for sample in samples if len(sample) > 1]
    error = math.hypot(*spreads) if len(spreads) == len(samples) else None
    if error:
        return Difference(means[0] - means[1], error, "over runs")
    why = "single run" if error is None else "all runs equal"
    if not images:
        return Difference(means[0] - means[1], None, f"{why}, number of test images not known")
    error = math.sqrt(sum(max(0.0, share * (1 - share)) / images for share in means))
    return Difference(means[0] - means[1], error, f"{why}: of the test images")


def points(share: float) -> str:
    """A difference of accuracies in points of a percent."""
    return f"{100 * share:+.1f} points"


def percent(shares: Sequence[float]) -> str:
    """Mean accuracy in percent, with the standard deviation where there are several."""
    spread = std(shares)
    return f"{100 * fmean(shares):.1f} %" if spread is None else f"{100 * fmean(shares):.1f} ± {100 * spread:.1f} %"


class Kind(NamedTuple):
    """Everything that makes two runs comparable; seeds, subsets and names do not count."""

    objective: str
    core: str
    origin: str | None
    weight: float | None
    data: str
    labels_per_class: int | None
    network: Network | None
    max_steps: int | None
    learning_rate: float | None
    batch_size: int | None
    order: str

    @property
    def name(self) -> str:
        """In a few words, without what two kinds of this name might differ in."""
        if self.objective != "Joint":
            return self.objective
        known = {"scratch": f"{self.core} from scratch", None: f"{self.core} of unknown origin"}
        few = f", {self.labels_per_class} labels a class" if self.labels_per_class else ""
        return known.get(self.origin, f"fine-tuned {self.core}") + (", L_CLF alone" if self.weight == 0 else "") + few


def kind_of(run: Run) -> Kind:
    """The kind of a run."""
    on, few, batch = run.data.label, run.data.labels_per_class, run.data.batch_size
    about = (run.objective, run.core, run.origin, run.weight, on, few, run.network)
    return Kind(*about, run.max_steps, run.learning_rate, batch, run.order)


def group(runs: Iterable[Run]) -> dict[Kind, list[Run]]:
    """Runs by kind, in the order in which the kinds appear."""
    groups: dict[Kind, list[Run]] = {}
    for run in runs:
        groups.setdefault(kind_of(run), []).append(run)
    return groups


def shape(network: Network | None) -> str:
    """The shape of a network in a few words."""
    if network is None:
        return "network not known"
    of = f"{network.n_layers} layers, width {network.d_model}"
    return f"{of}, {network.n_positions} positions, {network.vocab_size} colours"


UNITS: dict[str, Callable[[Any], str]] = {
    "weight": "L_GEN weight {}".format,
    "data": str,
    "network": shape,
    "max_steps": "{} steps".format,
    "learning_rate": "rate {}".format,
    "batch_size": "batch {}".format,
    "order": "{} order".format,
}


def labels(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """A name for each kind; where several would be called the same, what they differ in is added."""
    found = {}
    for kind in kinds:
        alike = [other for other in kinds if other.name == kind.name]
        differing = [field for field in UNITS if len({getattr(other, field) for other in alike}) > 1]
        found[kind] = ", ".join([kind.name, *(UNITS[field](getattr(kind, field)) for field in differing)])
    return found


def images_tested(runs: list[Run], data: str) -> int | None:
    """Size of the test split of some data, which the probes and likelihoods of any run may know."""
    probed = [probe.images.get("test") for run in runs for probe in run.probes if probe.data.label == data]
    scores = [score for run in runs if run.data.label == data for score in run.own_scores]
    return next(filter(None, [*probed, *(score.likelihood.images for score in scores if score.likelihood)]), None)


def trace(run: Run) -> list[tuple[Probe, float]]:
    """The probed checkpoints of a pre-training run with their validation loss, where it is known and a number.

    Only those that were probed as the last of them, and all by one method: of its methods, that of most checkpoints.
    """
    losses = [(probe, run.val_loss_at(probe.step)) for probe in run.probes if run.objective != "Joint"]
    known = [(probe, point.value) for probe, point in losses if point is not None and point.value == point.value]
    traces: list[list[tuple[Probe, float]]] = [[]]
    for newest, _ in known[-1:]:
        for name in dict.fromkeys([newest.method, *newest.methods]):
            alike = [one for one in known if way(one[0], name) == way(newest, name)]
            traces.append([(replace(probe, method=name), loss) for probe, loss in alike])
    return max(traces, key=len)


def way(probe: Probe, method: str) -> object:
    """How a probe was made: what must be equal for its accuracies to be compared; None where the method is missing."""
    known = method in probe.methods
    return (probe.data.label, probe.images, probe.features, probe.methods[method].protocol) if known else None


def tuned_accuracy(run: Run) -> float | None:
    """Test accuracy of a fine-tuned run."""
    return run.tested("accuracy") if run.objective == "Joint" else None


class Side(NamedTuple):
    """Runs of one kind that stand for one side of a comparison, with the accuracy of each."""

    runs: list[Run]
    accuracies: list[float]


Place = tuple[str, Network | None]  # data and network, which two sides must share
Sides = dict[Place, dict[str, Side]]


def sides(rows: Iterable[tuple[Place, str, Run, float | None, float | None]]) -> Sides:
    """Runs by place and side, from test and validation accuracy; of several recipes, the one best on validation."""
    found: dict[Place, dict[str, dict[Kind, list[tuple[Run, float, float | None]]]]] = {}
    for place, side, run, test, val in rows:
        if test is not None:
            kinds = found.setdefault(place, {}).setdefault(side, {})
            kinds.setdefault(kind_of(run), []).append((run, test, val))

    def rank(members: list[tuple[Run, float, float | None]]) -> tuple[float, int]:
        known = [val for _, _, val in members if val is not None]
        return (fmean(known) if known else -1.0, len(members))

    def best(kinds: dict[Kind, list[tuple[Run, float, float | None]]]) -> Side:
        chosen = max(kinds.values(), key=rank)
        return Side([run for run, _, _ in chosen], [test for _, test, _ in chosen])

    return {place: {side: best(kinds) for side, kinds in of.items()} for place, of in found.items()}


def probed_sides(runs: list[Run]) -> tuple[str | None, Sides]:
    """AR and BERT runs that can be compared: same data, same shape, and a method that some of both were probed with."""
    probed = [(run, run.probe) for run in runs if run.objective != "Joint" and run.probe]
    known = [{name for run, probe in probed if run.core == core for name in probe.methods} for core in CORES]
    method = next((name for name in METHODS if all(name in methods for methods in known)), "")
    best = [(run, probe, probe.methods[method].best) for run, probe in probed if method in probe.methods]
    rows = (((p.data.label, run.network), run.core, run, of.test_accuracy, of.val_accuracy) for run, p, of in best)
    return method or None, sides(rows)


def tuned_sides(runs: list[Run]) -> Sides:
    """Runs fine-tuned with both losses and all labels, by where they began: AR, BERT, or one of them from scratch."""
    rows = []
    for run in runs:
        if run.objective == "Joint" and run.weight and run.origin and not run.data.labels_per_class:
            side = f"{run.core} from scratch" if run.origin == "scratch" else run.core
            val = max((point.value for point in run.curve("val/accuracy")), default=None)
            rows.append(((run.data.label, run.network), side, run, tuned_accuracy(run), val))
    return sides(rows)


def votes(run: Run) -> tuple[float, float] | None:
    """Test accuracy under 5 masks and under one of the same checkpoint; of several, of best.ckpt or the latest step."""
    found: dict[tuple[bool, int, str], dict[int, float]] = {}
    for score in run.own_scores:
        accuracy = score.metrics.get("test/accuracy")
        if score.verb == "test" and accuracy is not None and score.evaluation and score.evaluation[0] == "mode":
            key = ("best" in score.checkpoint, score.step or 0, score.checkpoint)
            found.setdefault(key, {})[score.evaluation[1]] = accuracy
    both = [key for key, by_masks in found.items() if {VOTES, 1} <= set(by_masks)]
    return (found[max(both)][VOTES], found[max(both)][1]) if both else None
