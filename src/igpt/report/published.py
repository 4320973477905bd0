"""Figures of the paper and of its released code, each with its data and source; and which runs stand beside them."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from igpt.report.comparing import Kind, kind_of, labels, percent, tuned_accuracy
from igpt.report.schema import Run

PAPER = "Chen et al. 2020"
CODE = "README of the released code"
SECOND = "Chen et al. 2020, from a secondary copy"
PROBE, TUNED, LOSS, FEW = "linear probe", "fine-tuned", "test loss, nats per pixel", "few labels"


class Published(NamedTuple):
    """One published figure; of data whose resolution is not known, the name alone."""

    measure: str
    data: str
    model: str
    value: str
    source: str
    labels_per_class: int | None = None


PUBLISHED = [
    Published(PROBE, "CIFAR10 32x32", "iGPT-L, pre-trained on ImageNet", "96.3 %", PAPER),
    Published(PROBE, "CIFAR100 32x32", "iGPT-L, pre-trained on ImageNet", "82.8 %", SECOND),
    Published(PROBE, "STL10", "iGPT-L, pre-trained on ImageNet", "95.5 %", SECOND),
    Published(PROBE, "ImageNet 32x32", "iGPT-S", "41.9 %", PAPER),
    Published(PROBE, "ImageNet 32x32", "iGPT-M", "54.5 %", PAPER),
    Published(PROBE, "ImageNet 32x32", "iGPT-L", "60.3 %", PAPER),
    Published(PROBE, "ImageNet 48x48", "iGPT-L", "65.2 %", PAPER),
    Published(PROBE, "ImageNet 64x64", "iGPT-XL", "68.7 %", PAPER),
    Published(PROBE, "ImageNet 64x64", "iGPT-XL, five layers side by side", "72.0 %", PAPER),
    Published(TUNED, "CIFAR10 32x32", "iGPT-L, pre-trained on ImageNet", "99.0 %", PAPER),
    Published(TUNED, "CIFAR100 32x32", "iGPT-L, pre-trained on ImageNet", "88.5 %", PAPER),
    Published(TUNED, "ImageNet 32x32", "iGPT-L", "66.3 %", PAPER),
    Published(TUNED, "ImageNet 48x48", "iGPT-L", "72.6 %", PAPER),
    Published(LOSS, "ImageNet 32x32", "iGPT-S", "2.0895", CODE),
    Published(LOSS, "ImageNet 32x32", "iGPT-M", "2.0614", CODE),
    Published(LOSS, "ImageNet 32x32", "iGPT-L", "2.0466", CODE),
    Published(FEW, "CIFAR10 32x32", "4 labels a class, mean of 5 subsets", "73.2 %", PAPER, 4),
    Published(FEW, "CIFAR10 32x32", "25 labels a class, mean of 5 subsets", "87.6 %", PAPER, 25),
    Published(FEW, "CIFAR10 32x32", "400 labels a class, mean of 5 subsets", "94.3 %", SECOND, 400),
]


def beside(figure: Published, runs: list[Run]) -> str:
    """What runs on the same data reached, the mean of every kind; empty where there is none."""
    few = figure.labels_per_class
    trained = [r for r in runs if figure.data in (r.data.plain, r.data.name) and r.data.labels_per_class == few]
    probed = [(r, r.probe) for r in runs if r.objective != "Joint" and r.probe]
    probed = [(r, probe) for r, probe in probed if figure.data in (probe.data.plain, probe.data.name)]
    if figure.measure == PROBE:
        return listed([(run, probe.result.best.test_accuracy) for run, probe in probed], percent)
    if figure.measure == LOSS:
        losses = [(run, run.tested("loss")) for run in trained if run.objective == "AR"]
        return listed(losses, lambda found: f"{fmean(found):.4f}")
    low_data = [(run, low) for run, probe in probed for low in probe.low_data if low.runs]
    probes = [f"probe of {run.name} {percent(of.accuracies)}" for run, of in low_data if of.labels_per_class == few]
    return "; ".join(filter(None, [*probes, listed([(run, tuned_accuracy(run)) for run in trained], percent)]))


def listed(figures: Sequence[tuple[Run, float | None]], write: Callable[[list[float]], str]) -> str:
    """The mean figure of every kind of runs."""
    found: dict[Kind, list[float]] = {}
    for run, value in figures:
        if value is not None:
            found.setdefault(kind_of(run), []).append(value)
    of = {name: found[kind] for kind, name in labels(found).items()}
    return "; ".join(f"{name} {write(v)} ({len(v)} run{'s' if len(v) > 1 else ''})" for name, v in of.items())
