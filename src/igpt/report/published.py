"""The words of the page, and the published figures among them with the runs that stand beside them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from igpt.report.comparing import ATTENTIVE, METHODS, Kind, kind_of, labels, percent, tuned_accuracy
from igpt.report.schema import Probe, Run

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))


class Published(NamedTuple):
    """One published figure; of data whose resolution is not known, the name alone."""

    measure: str
    data: str
    model: str
    value: str
    source: str
    labels_per_class: int | None = None


PUBLISHED = [Published(*figure) for figure in WORDS["published"]]


def beside(figure: Published, runs: list[Run]) -> str:
    """What runs on the same data reached, the mean of every kind; empty where there is none."""
    few, own = figure.labels_per_class, [run for run in runs if figure.data in (run.data.plain, run.data.name)]
    own = [run for run in own if run.data.labels_per_class == few]
    probed = [(run, run.probe) for run in runs if run.objective != "Joint" and run.probe]
    probed = [(run, probe) for run, probe in probed if figure.data in (probe.data.plain, probe.data.name)]
    if figure.measure == "linear probe":
        return listed(((run, linear_accuracy(probe)) for run, probe in probed), percent)
    if figure.measure.startswith("test loss"):
        losses = ((run, run.tested("loss")) for run in own if run.objective == "AR")
        return listed(losses, lambda found: f"{fmean(found):.4f}")
    low_data = [(run, low) for run, probe in probed for low in probe.low_data if low.runs]
    probes = [f"probe of {run.name} {percent(of.accuracies)}" for run, of in low_data if of.labels_per_class == few]
    return "; ".join(filter(None, [*probes, listed(((run, tuned_accuracy(run)) for run in own), percent)]))


def linear_accuracy(probe: Probe) -> float | None:
    """Of the best layer by the main method, or the first other one where that is no probe of mean features."""
    names = (name for name in (probe.method, *METHODS) if name in probe.methods and name not in ATTENTIVE)
    return next((probe.methods[name].best.test_accuracy for name in names), None)


def listed(figures: Iterable[tuple[Run, float | None]], write: Callable[[list[float]], str]) -> str:
    """The mean figure of every kind of runs."""
    found: dict[Kind, list[float]] = {}
    for run, value in figures:
        if value is not None:
            found.setdefault(kind_of(run), []).append(value)
    of = [(name, found[kind]) for kind, name in labels(found).items()]
    return "; ".join(f"{name} {write(v)} ({len(v)} run{'s' if len(v) > 1 else ''})" for name, v in of)
