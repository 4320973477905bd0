"""Which runs can be compared with which: runs of one kind differ in their seeds only."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any, NamedTuple

from igpt.report.schema import Network, Probe, Run

METHODS = ("lbfgs", "sgd", "knn")  # of mean features, in the order in which one that both sides have is looked for
ATTENTIVE = ("attentive",)  # of tokens
CORES = ("AR", "BERT")
VOTES = 5


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two values."""
    return stdev(values) if len(values) > 1 else None


def percent(shares: Sequence[float]) -> str:
    """Mean accuracy in percent, with the standard deviation where there are several."""
    spread = "" if len(shares) < 2 else f" ± {100 * stdev(shares):.1f}"
    return f"{100 * fmean(shares):.1f}{spread} %"


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


def any_family(runs: Iterable[Run]) -> bool:
    """Whether some run is of another family than igpt's own transformers."""
    return any(not run.objective.startswith(("AR", "BERT", "Joint")) for run in runs)


def kind_of(run: Run) -> Kind:
    """The kind of a run."""
    known = vars(run) | {"labels_per_class": run.data.labels_per_class, "batch_size": run.data.batch_size}
    return Kind(**{name: known[name] for name in Kind._fields} | {"data": run.data.label})


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

    def best(kinds: dict[Kind, list[tuple[Run, float, float | None]]]) -> Side:
        known = [(fmean([val for *_, val in of if val is not None] or [-1.0]), len(of), of) for of in kinds.values()]
        chosen = max(known, key=lambda one: one[:2])[2]
        return Side([run for run, _, _ in chosen], [test for _, test, _ in chosen])

    return {place: {side: best(kinds) for side, kinds in of.items()} for place, of in found.items()}


def probed_sides(runs: list[Run], methods: tuple[str, ...] = METHODS) -> tuple[str, Sides]:
    """AR and BERT runs that can be compared: same data, same shape, and a method that some of both were probed with."""
    probed = [(run, run.probe) for run in runs if run.objective != "Joint" and run.probe]
    known = [{name for run, probe in probed if run.core == core for name in probe.methods} for core in CORES]
    method = next((name for name in methods if all(name in had for had in known)), "")
    best = [(run, probe, probe.methods[method].best) for run, probe in probed if method in probe.methods]
    rows = (((p.data.label, run.network), run.core, run, of.test_accuracy, of.val_accuracy) for run, p, of in best)
    return method, sides(rows)


def tuned_sides(runs: list[Run]) -> Sides:
    """Runs fine-tuned with both losses and all labels, by where they began: AR, BERT, or one of them from scratch."""
    tuned = [run for run in runs if run.objective == "Joint" and run.weight and run.origin]
    return sides(
        ((run.data.label, run.network), f"{run.core} from scratch" if run.origin == "scratch" else run.core, run,
         tuned_accuracy(run), max((point.value for point in run.curve("val/accuracy")), default=None))
        for run in tuned if not run.data.labels_per_class
    )  # fmt: skip


def votes(run: Run) -> tuple[float, float] | None:
    """Test accuracy under 5 masks and under one of the same checkpoint; of several, of best.ckpt or the latest step."""
    found: dict[tuple[bool, int, str], dict[int, float]] = {}
    for score in run.own_scores:
        accuracy, how = score.metrics.get("test/accuracy"), score.evaluation
        if score.verb == "test" and accuracy is not None and how and how[0] == "mode":
            found.setdefault(("best" in score.checkpoint, score.step or 0, score.checkpoint), {})[how[1]] = accuracy
    both = [key for key, by_masks in found.items() if {VOTES, 1} <= set(by_masks)]
    return (found[max(both)][VOTES], found[max(both)][1]) if both else None
