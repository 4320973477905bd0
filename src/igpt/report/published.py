"""Figures of the paper and of its released code, each with its data and source; and which runs stand beside them."""

from collections.abc import Callable
from dataclasses import dataclass

from igpt.report.groups import group, labels
from igpt.report.judging import percent
from igpt.report.pairing import having, probe_accuracy, tuned_accuracy, values
from igpt.report.records import Run

PAPER = "Chen et al. 2020"
CODE = "README of the released code"
SECOND = "Chen et al. 2020, from a secondary copy"
PROBE, TUNED, LOSS, FEW = "linear probe", "fine-tuned", "test loss, nats per pixel", "few labels"


@dataclass(frozen=True)
class Published:
    """One published figure; `resolution` is None where it is not known."""

    measure: str
    data: str
    resolution: int | None
    model: str
    value: str
    source: str
    labels_per_class: int | None = None

    @property
    def label(self) -> str:
        """Data and resolution as records write them."""
        return f"{self.data} {self.resolution}x{self.resolution}" if self.resolution else self.data


PUBLISHED = [
    Published(PROBE, "CIFAR10", 32, "iGPT-L, pre-trained on ImageNet", "96.3 %", PAPER),
    Published(PROBE, "CIFAR100", 32, "iGPT-L, pre-trained on ImageNet", "82.8 %", SECOND),
    Published(PROBE, "STL10", None, "iGPT-L, pre-trained on ImageNet", "95.5 %", SECOND),
    Published(PROBE, "ImageNet", 32, "iGPT-S", "41.9 %", PAPER),
    Published(PROBE, "ImageNet", 32, "iGPT-M", "54.5 %", PAPER),
    Published(PROBE, "ImageNet", 32, "iGPT-L", "60.3 %", PAPER),
    Published(PROBE, "ImageNet", 48, "iGPT-L", "65.2 %", PAPER),
    Published(PROBE, "ImageNet", 64, "iGPT-XL", "68.7 %", PAPER),
    Published(PROBE, "ImageNet", 64, "iGPT-XL, five layers side by side", "72.0 %", PAPER),
    Published(TUNED, "CIFAR10", 32, "iGPT-L, pre-trained on ImageNet", "99.0 %", PAPER),
    Published(TUNED, "CIFAR100", 32, "iGPT-L, pre-trained on ImageNet", "88.5 %", PAPER),
    Published(TUNED, "ImageNet", 32, "iGPT-L", "66.3 %", PAPER),
    Published(TUNED, "ImageNet", 48, "iGPT-L", "72.6 %", PAPER),
    Published(LOSS, "ImageNet", 32, "iGPT-S", "2.0895", CODE),
    Published(LOSS, "ImageNet", 32, "iGPT-M", "2.0614", CODE),
    Published(LOSS, "ImageNet", 32, "iGPT-L", "2.0466", CODE),
    Published(FEW, "CIFAR10", 32, "4 labels a class, mean of 5 subsets", "73.2 %", PAPER, 4),
    Published(FEW, "CIFAR10", 32, "25 labels a class, mean of 5 subsets", "87.6 %", PAPER, 25),
    Published(FEW, "CIFAR10", 32, "400 labels a class, mean of 5 subsets", "94.3 %", SECOND, 400),
]


def same_data(figure: Published, label: str) -> bool:
    """Whether a run's data are those of a published figure."""
    return label == figure.label or (figure.resolution is None and label.partition(" ")[0] == figure.data)


def beside(figure: Published, runs: list[Run]) -> str | None:
    """What runs on the same data reached, by kind; None where there is none."""
    return {PROBE: probed, TUNED: tuned, LOSS: lost, FEW: few}[figure.measure](figure, runs)


def probed(figure: Published, runs: list[Run]) -> str | None:
    """Best layers of pre-training runs, main method of each."""
    on_it = [r for r in runs if r.objective != "Joint" and r.probe and same_data(figure, r.probe.data.plain)]
    return listed(on_it, lambda run: probe_accuracy(run.probe.method)(run) if run.probe else None, percent)


def tuned(figure: Published, runs: list[Run]) -> str | None:
    """Fine-tuned runs with all labels."""
    on_it = [run for run in runs if same_data(figure, run.data.plain) and not run.data.labels_per_class]
    return listed(on_it, tuned_accuracy, percent)


def lost(figure: Published, runs: list[Run]) -> str | None:
    """Test losses of AR runs."""
    on_it = [run for run in runs if run.objective == "AR" and same_data(figure, run.data.plain)]
    return listed(on_it, lambda run: run.tested("loss"), lambda found: f"{sum(found) / len(found):.4f}")


def few(figure: Published, runs: list[Run]) -> str | None:
    """Probes and fine-tuned runs with as few labels."""
    wanted = figure.labels_per_class
    parts = []
    for run in runs:
        if run.probe and same_data(figure, run.probe.data.plain):
            parts += [
                f"probe of {run.name} {percent(entry.accuracies)}"
                for entry in run.probe.low_data
                if entry.labels_per_class == wanted and entry.accuracies
            ]
    on_it = [run for run in runs if same_data(figure, run.data.plain) and run.data.labels_per_class == wanted]
    fine_tuned = listed(on_it, tuned_accuracy, percent)
    return "; ".join([*parts, *([fine_tuned] if fine_tuned else [])]) or None


def listed(runs: list[Run], measure: Callable[[Run], float | None], write: Callable[[list[float]], str]) -> str | None:
    """The mean of every kind that has the measure."""
    kinds = {kind: members for kind, of in group(runs).items() if (members := having(of, measure))}
    names = labels(list(kinds))
    parts = []
    for kind, members in kinds.items():
        plural = "s" if len(members) > 1 else ""
        parts.append(f"{names[kind]} {write(values(members, measure))} ({len(members)} run{plural})")
    return "; ".join(parts) or None
