"""Findings of the paper, looked for in the given runs, and the significance rule behind every verdict.

Two accuracies differ if their difference exceeds its standard error: over the runs (seeds) of each side, or, of single
runs, of the sampling of their test images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from igpt.data import sampling_error
from igpt.report.comparing import (
    ATTENTIVE,
    CORES,
    METHODS,
    VOTES,
    Kind,
    Side,
    Sides,
    group,
    images_tested,
    kind_of,
    labels,
    percent,
    probed_sides,
    shape,
    trace,
    tuned_accuracy,
    tuned_sides,
    votes,
)  # fmt: skip
from igpt.report.published import WORDS
from igpt.report.schema import LayerScore, Run

SEEN, NOT_SEEN, CANNOT, NO_DATA = "seen", "not seen", "cannot be told", "no data"
FEWEST = 4  # checkpoints: of 3, even the perfect order comes about by chance once in 6
LIKELY = 0.05


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
        if self.error is None:
            return NO_DATA if self.value else CANNOT
        return CANNOT if abs(self.value) <= self.error else SEEN if self.value > 0 else NOT_SEEN

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
    error = math.hypot(*(sampling_error(share, images) for share in means))
    return Difference(means[0] - means[1], error, f"{why}: of the test images")


def points(share: float) -> str:
    """A difference of accuracies in points of a percent."""
    return f"{100 * share:+.1f} points"


class Evidence(NamedTuple):
    """What one comparison says about a finding."""

    subject: str
    numbers: str
    runs: str
    verdict: str


class Finding(NamedTuple):
    """A claim of the paper, the rule it is judged by, and what the runs say; no evidence means none could be had."""

    claim: str
    rule: str
    missing: str
    evidence: list[Evidence]


def claim(judge: Callable[[list[Run]], Iterator[Evidence]]) -> Callable[[list[Run]], Finding]:
    """Make a finding of a function that yields its evidence; the words of the claim stand under the function's name."""
    known = {"significance": WORDS["significance"], "likely": f"{100 * LIKELY:.0f} %", "fewest": FEWEST, "votes": VOTES}
    texts = {name: text.format(**known) for name, text in WORDS["claims"][judge.__name__].items()}
    return lambda runs: Finding(**texts, evidence=list(judge(runs)))


def count(*sides: list[Run]) -> str:
    """How many runs, and their seeds, of each side."""
    parts = []
    for runs in sides:
        seeds = ", ".join("?" if run.seed is None else str(run.seed) for run in runs)
        parts.append(f"a single run (seed {seeds})" if len(runs) == 1 else f"{len(runs)} runs (seeds {seeds})")
    return " against ".join(parts)


def probed_kinds(runs: list[Run]) -> Iterator[tuple[str, str, list[Run]]]:
    """Name, data and members of each kind of probed pre-training run."""
    probed = [run for run in runs if run.objective != "Joint" and run.probe]
    names = labels(group(probed))
    kinds: dict[tuple[str, str], list[Run]] = {}
    for run in probed:
        kinds.setdefault((names[kind_of(run)], run.probe.data.label if run.probe else ""), []).append(run)
    yield from ((name, data, members) for (name, data), members in kinds.items())


@claim
def beat_pixels(runs: list[Run]) -> Iterator[Evidence]:
    """The best layer minus raw pixels, under the probe that came last."""
    for name, data, members in probed_kinds(runs):
        results = [run.probe.result for run in members if run.probe]
        pairs = [(one.best.test_accuracy, one.raw_pixels.test_accuracy) for one in results if one.raw_pixels]
        if len(pairs) == len(members):
            features, pixels = zip(*pairs, strict=True)
            gap = difference([features, pixels], images_tested(members, data), paired=True)
            text = f"best layer {percent(features)}, raw pixels {percent(pixels)}: {gap.text()}"
            yield Evidence(f"{name}, {data}", text, count(members), gap.verdict)


@claim
def few_labels(runs: list[Run]) -> Iterator[Evidence]:
    """The best layer minus raw pixels, fitted to the same few labels; the mean over a run's subsets counts."""
    for name, data, members in probed_kinds(runs):
        rows = [
            {row.labels_per_class: row for row in run.probe.low_data if row.raw_pixels} for run in members if run.probe
        ]
        for labelled in sorted(set.intersection(*(set(row) for row in rows))):
            features = [fmean(row[labelled].accuracies) for row in rows]
            pixels = [fmean(one.test_accuracy for one in row[labelled].raw_pixels) for row in rows]
            gap = difference([features, pixels], images_tested(members, data), paired=True)
            text = (
                f"{labelled} labels a class: best layer {percent(features)}, raw pixels {percent(pixels)}: {gap.text()}"
            )
            yield Evidence(f"{name}, {data}", text, count(members), gap.verdict)


@claim
def middle_layers(runs: list[Run]) -> Iterator[Evidence]:
    """The best layer of each kind of pre-training run, inside the middle half of the network or outside."""
    for name, data, members in probed_kinds(runs):
        pairs = [pair for run in members if (pair := inside_outside(run))]
        text, verdict = "layers inside and outside the middle half were not both probed", NO_DATA
        if len(pairs) == len(members):
            sides = [[pair[side].test_accuracy for pair in pairs] for side in (0, 1)]
            gap = difference(sides, images_tested(members, data), paired=True)
            best = ", ".join(f"{run.probe.result.best_layer} of {depth(run)}" for run in members if run.probe)
            text = f"best layer {best}; the best layer inside minus the best outside: {gap.text()}"
            verdict = gap.verdict
        yield Evidence(f"{name}, {data}", text, count(members), verdict)


def depth(run: Run) -> int:
    """L, from the network's shape, else from the layers that were probed."""
    probed = [score.layer or 0 for score in run.probe.result.layers] if run.probe else [0]
    return run.network.n_layers if run.network else max(probed)


def inside_outside(run: Run) -> tuple[LayerScore, LayerScore] | None:
    """The layers of best validation accuracy inside and outside the middle half; None where one side is missing."""
    last, scores = depth(run), run.probe.result.layers if run.probe else []
    inside = [score for score in scores if last / 4 <= (score.layer or 0) <= 3 * last / 4]
    outside = [score for score in scores if score not in inside]

    def validation(score: LayerScore) -> tuple[float, int]:
        return (-1.0 if score.val_accuracy is None else score.val_accuracy, -(score.layer or 0))

    return (max(inside, key=validation), max(outside, key=validation)) if inside and outside else None


@claim
def lower_loss(runs: list[Run]) -> Iterator[Evidence]:
    """Rank correlation of loss and accuracy over the checkpoints of each pre-training run."""
    for run in runs:
        if known := trace(run):
            text, verdict = correlation([loss for _, loss in known], [p.result.best.test_accuracy for p, _ in known])
            others = len(run.probes) - len(known)
            left_out = f"; left out, without a loss or not probed as the last one: {others}" if others else ""
            checkpoints = f"{len(known)} checkpoint{'s' if len(known) > 1 else ''} of a single run"
            yield Evidence(run.name, f"{text}, {known[-1][0].method}{left_out}", checkpoints, verdict)


def correlation(losses: list[float], accuracies: list[float]) -> tuple[str, str]:
    """Numbers and verdict for the checkpoints of one run."""
    rho = spearman(losses, accuracies)
    if rho is None:
        return ("all losses or all accuracies are equal", CANNOT) if len(losses) > 1 else ("one checkpoint", NO_DATA)
    falling, rising = (chance_of_falling(losses, [sign * value for value in accuracies]) for sign in (1, -1))
    told = CANNOT if min(falling, rising) > LIKELY else SEEN if falling <= rising else NOT_SEEN
    text = f"rank correlation {rho:+.2f}; {100 * falling:.1f} % of all orders give one as low"
    return text, told if len(losses) >= FEWEST else NO_DATA


@claim
def scale(runs: list[Run]) -> Iterator[Evidence]:
    """The largest network minus the smallest, for pre-training runs that are alike in everything else."""
    probed = group(run for run in runs if run.objective != "Joint" and run.probe and run.network)
    sizes: dict[Kind, list[Kind]] = {}
    for kind in probed:
        sizes.setdefault(kind._replace(network=None), []).append(kind)
    for plain, kinds in sizes.items():
        small, large = (end(kinds, key=blocks_size) for end in (min, max))
        if blocks_size(small) < blocks_size(large):
            sides = [[run.probe.result.best.test_accuracy for run in probed[of] if run.probe] for of in (large, small)]
            gap = difference(sides, images_tested(probed[large], plain.data))
            means = [f"{shape(of.network)}: {percent(side)}" for of, side in zip((large, small), sides, strict=True)]
            text = f"{'; '.join(means)}; {gap.text()}"
            yield Evidence(f"{plain.name}, {plain.data}", text, count(probed[large], probed[small]), gap.verdict)


def blocks_size(kind: Kind) -> int:
    """Weights of the blocks, up to a constant."""
    return kind.network.n_layers * kind.network.d_model**2 if kind.network else 0


def both(found: Sides) -> Sides:
    """The places where AR and BERT both stand."""
    return {place: of for place, of in found.items() if set(CORES) <= set(of)}


def ar_minus_bert(of: dict[str, Side], images: int | None) -> Difference:
    """Difference of their accuracies at one place."""
    return difference([of[core].accuracies for core in CORES], images)


def unlike(of: dict[str, Side]) -> str:
    """In which ways AR and BERT were probed, where these are several; masks are BERT's own."""
    features = [run.probe.features for core in CORES for run in of[core].runs if run.probe]
    ways = sorted({f"norm {how.norm}, grid {how.grid}, standardised {how.standardise}" for how in features})
    return f"the two were not probed the same way: {' against '.join(ways)}" if len(ways) > 1 else ""


@claim
def probes_behind(runs: list[Run]) -> Iterator[Evidence]:
    """AR minus BERT, by the probe of the best layer; of mean features, and where both have it by the attentive one."""
    for methods in (METHODS, ATTENTIVE):
        method, probed = probed_sides(runs, methods)
        for (data, network), of in both(probed).items():
            gap = ar_minus_bert(of, images_tested(runs, data))
            text, verdict = f"AR minus BERT, {method}, best layer: {gap.text()}", gap.verdict
            if reason := unlike(of):
                text, verdict = reason, CANNOT
            subject = f"{data}; {shape(network)}" + ("; attentive probe" if methods is ATTENTIVE else "")
            yield Evidence(subject, text, count(of["AR"].runs, of["BERT"].runs), verdict)


@claim
def near_when_tuned(runs: list[Run]) -> Iterator[Evidence]:
    """Whether at most half of the gap on probes is left after fine-tuning."""
    probed = both(probed_sides(runs)[1])
    for place, of in both(tuned_sides(runs)).items():
        if before := probed.get(place):
            gap, left = (ar_minus_bert(side, images_tested(runs, place[0])) for side in (before, of))
            error = None if gap.error is None or left.error is None else (gap.error**2 / 4 + left.error**2) ** 0.5
            reason = unlike(before) or ("no gap is seen to begin with" if gap.verdict != SEEN else "")
            verdict = CANNOT if reason else Difference(gap.value / 2 - left.value, error).verdict
            text = f"AR minus BERT after fine-tuning {left.text()}; on probes {points(gap.value)}"
            text += f", where {reason}" if reason else ""
            many = count(of["AR"].runs, of["BERT"].runs)
            yield Evidence(f"{place[0]}; {shape(place[1])}", text, many, verdict)


@claim
def joint(runs: list[Run]) -> Iterator[Evidence]:
    """L_GEN + L_CLF minus L_CLF alone, for runs that are alike in everything else."""
    tuned = group(run for run in runs if run.origin and tuned_accuracy(run) is not None)
    names = labels(tuned)
    for kind, members in tuned.items():
        if kind.weight and (alone := tuned.get(kind._replace(weight=0))):
            sides = [[tuned_accuracy(run) or 0.0 for run in side] for side in (members, alone)]
            gap = difference(sides, images_tested(runs, kind.data))
            text = f"both losses {percent(sides[0])}, L_CLF alone {percent(sides[1])}: {gap.text()}"
            yield Evidence(f"{names[kind]}, {kind.data}", text, count(members, alone), gap.verdict)


@claim
def vote(runs: list[Run]) -> Iterator[Evidence]:
    """Accuracy under 5 masks minus accuracy under one, of the same checkpoints of fine-tuned BERT."""
    tuned = group(run for run in runs if run.objective == "Joint" and run.core == "BERT" and votes(run))
    names = labels(tuned)
    for kind, members in tuned.items():
        sides = list(zip(*filter(None, map(votes, members)), strict=True))
        gap = difference(sides, images_tested(runs, kind.data), paired=True)
        text = f"{VOTES} masks {percent(sides[0])}, one mask {percent(sides[1])}: {gap.text()}"
        yield Evidence(f"{names[kind]}, {kind.data}", text, count(members), gap.verdict)


def all_findings(runs: list[Run]) -> list[Finding]:
    """Every finding for these runs."""
    judges = (beat_pixels, few_labels, middle_layers, lower_loss, scale, probes_behind, near_when_tuned, joint, vote)
    return [judge(runs) for judge in judges]
