"""Which runs are of one kind, so that only their seeds differ."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

from igpt.report.records import Network, Run
from igpt.report.statistics import mean

Measure = Callable[[Run], float | None]


@dataclass(frozen=True)
class Kind:
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
        start = known.get(self.origin, f"fine-tuned {self.core}")
        alone = ", L_CLF alone" if self.weight == 0 else ""
        few = f", {self.labels_per_class} labels a class" if self.labels_per_class else ""
        return f"{start}{alone}{few}"


UNITS = {
    "weight": "L_GEN weight {}",
    "data": "{}",
    "max_steps": "{} steps",
    "learning_rate": "rate {}",
    "batch_size": "batch {}",
    "order": "{} order",
}


def kind_of(run: Run) -> Kind:
    """The kind of a run."""
    return Kind(
        run.objective,
        run.core,
        run.origin,
        run.weight,
        run.data.label,
        run.data.labels_per_class,
        run.network,
        run.max_steps,
        run.learning_rate,
        run.data.batch_size,
        run.order,
    )


def group(runs: list[Run]) -> dict[Kind, list[Run]]:
    """Runs by kind, in the order in which the kinds appear."""
    groups: dict[Kind, list[Run]] = {}
    for run in runs:
        groups.setdefault(kind_of(run), []).append(run)
    return groups


def labels(kinds: list[Kind]) -> dict[Kind, str]:
    """A name for each kind; where several would be called the same, what they differ in is added."""
    counts = Counter(kind.name for kind in kinds)
    return {kind: kind.name if counts[kind.name] == 1 else distinguished(kind, kinds) for kind in kinds}


def distinguished(kind: Kind, kinds: list[Kind]) -> str:
    """The name of a kind with all that others of this name have otherwise."""
    others = [other for other in kinds if other.name == kind.name]
    parts = [kind.name]
    for name in [field.name for field in fields(Kind)]:
        value = getattr(kind, name)
        if len({getattr(other, name) for other in others}) > 1 and name in {*UNITS, "network"}:
            parts.append(shape(value) if name == "network" else UNITS[name].format(value))
    return ", ".join(parts)


def shape(network: Network | None) -> str:
    """The shape of a network in a few words."""
    if network is None:
        return "network not known"
    return f"{network.layers} layers, width {network.width}, {network.positions} positions, {network.colors} colours"


def representative(groups: dict[Kind, list[Run]], measure: Measure, on_validation: Measure) -> list[Run]:
    """Of several recipes of the same thing, the one that stands for it: the one with the best validation accuracy.

    Args:
        groups: by recipe.
        measure: what will be compared; only runs that have it count.
        on_validation: what chooses between recipes; one that lacks it comes last.
    """
    having = [[run for run in runs if measure(run) is not None] for runs in groups.values()]

    def rank(runs: list[Run]) -> tuple[float, int]:
        known = [value for run in runs if (value := on_validation(run)) is not None]
        return (mean(known) if known else -1.0, len(runs))

    return max((runs for runs in having if runs), key=rank, default=[])
