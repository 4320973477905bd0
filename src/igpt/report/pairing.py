"""Which runs can be compared with which, and what is measured on them."""

from collections.abc import Callable
from dataclasses import replace

from igpt.report.groups import Kind, Measure, group, representative
from igpt.report.records import LayerScore, Network, Probe, Run, Score

METHODS = ("lbfgs", "sgd", "knn")  # the order in which a method that both sides have is looked for
CORES = ("AR", "BERT")
VOTES = 5
Sides = dict[tuple[str, Network | None], dict[str, list[Run]]]  # by data and network, then by side


def count(runs: list[Run]) -> str:
    """How many runs, and their seeds."""
    seeds = ["?" if run.seed is None else str(run.seed) for run in runs]
    return f"a single run (seed {seeds[0]})" if len(runs) == 1 else f"{len(runs)} runs (seeds {', '.join(seeds)})"


def both(first: list[Run], second: list[Run]) -> str:
    """Counts of two sides."""
    return f"{count(first)} against {count(second)}"


def having(runs: list[Run], measure: Measure) -> list[Run]:
    """The runs that have a measure."""
    return [run for run in runs if measure(run) is not None]


def values(runs: list[Run], measure: Measure) -> list[float]:
    """The measure of every run that has it."""
    return [value for run in runs if (value := measure(run)) is not None]


def images_tested(runs: list[Run], data: str) -> int | None:
    """Size of the test split of some data, which the probes and likelihoods of any run may know."""
    probed = [probe.images.get("test") for run in runs for probe in run.probes if probe.data.label == data]
    scored = [
        score.likelihood.images
        for run in runs
        if run.data.label == data
        for score in run.own_scores
        if score.likelihood
    ]
    return next((size for size in [*probed, *scored] if size), None)


def probe_kinds(runs: list[Run]) -> dict[tuple[Kind, str], list[Run]]:
    """Runs with a probe, by kind and by the data that they were probed on."""
    found: dict[tuple[Kind, str], list[Run]] = {}
    for kind, members in group(runs).items():
        for run in members:
            if run.probe is not None:
                found.setdefault((kind, run.probe.data.label), []).append(run)
    return found


def trace(run: Run) -> list[tuple[Probe, float]]:
    """The probed checkpoints of a run whose validation loss is known and a number, with that loss.

    Only those that were probed as the last of them, and all by one method: of its methods, that of most checkpoints.
    """
    losses = [(probe, run.val_loss_at(probe.step)) for probe in run.probes]
    known = [(probe, point.value) for probe, point in losses if point is not None and point.value == point.value]
    if not known:
        return []
    newest = known[-1][0]
    traces = [
        [(replace(probe, method=name), loss) for probe, loss in known if probed_alike(probe, newest, name)]
        for name in dict.fromkeys([newest.method, *newest.methods])
    ]
    return max(traces, key=len)


def probed_alike(probe: Probe, other: Probe, method: str) -> bool:
    """Whether both were probed by a method in one way: on the same images, with the same features."""
    sides = [(p.data.label, p.images, p.protocol, p.methods[method].protocol) for p in (probe, other)
             if method in p.methods]  # fmt: skip
    return len(sides) == 2 and sides[0] == sides[1]


def probe_best(run: Run, method: str | None) -> LayerScore | None:
    """The best layer of the run's last probed checkpoint under one method, where it was probed so."""
    return run.probe.methods[method].best if run.probe and method in run.probe.methods else None


def probe_accuracy(method: str | None) -> Measure:
    """Test accuracy of the best layer under one method."""
    return lambda run: best.test if (best := probe_best(run, method)) else None


def probe_validation(method: str | None) -> Measure:
    """Validation accuracy of the best layer under one method."""
    return lambda run: best.val if (best := probe_best(run, method)) else None


def tuned_accuracy(run: Run) -> float | None:
    """Test accuracy of a fine-tuned run."""
    return run.tested("accuracy") if run.objective == "Joint" else None


def tuned_validation(run: Run) -> float | None:
    """Best validation accuracy while fine-tuning."""
    return max((point.value for point in run.curve("val/accuracy")), default=None)


def shared_method(runs: list[Run]) -> str | None:
    """A method that AR and BERT runs were both probed with."""
    probed = [run for run in runs if run.objective != "Joint" and run.probe]
    known = [{name for run in probed if run.core == core and run.probe for name in run.probe.methods} for core in CORES]
    return next((name for name in METHODS if all(name in side for side in known)), None)


def ways(of: dict[str, list[Run]]) -> list[str]:
    """The ways in which AR's and BERT's features were taken; one, where they can be compared. Masks are BERT's own."""
    protocols = [run.probe.protocol for name in CORES for run in of[name] if run.probe]
    return sorted({f"norm {how.norm}, grid {how.grid}, standardised {how.standardised}" for how in protocols})


def probed_sides(runs: list[Run], method: str | None) -> Sides:
    """AR and BERT runs that can be compared: probed on the same data, same shape of the network."""
    return sides(
        [run for run in runs if run.objective != "Joint" and run.probe is not None],
        lambda run: run.core,
        lambda run: run.probe.data.label if run.probe else "",
        probe_accuracy(method),
        probe_validation(method),
    )


def tuned_sides(runs: list[Run]) -> Sides:
    """Runs fine-tuned with both losses and all labels, by where they began: AR, BERT, or one of them from scratch."""
    tuned = [run for run in runs if run.objective == "Joint" and run.generative and run.origin]
    return sides(
        [run for run in tuned if not run.data.labels_per_class],
        lambda run: f"{run.core} from scratch" if run.origin == "scratch" else run.core,
        lambda run: run.data.label,
        tuned_accuracy,
        tuned_validation,
    )


def sides(
    runs: list[Run],
    side: Callable[[Run], str],
    data: Callable[[Run], str],
    measure: Measure,
    on_validation: Measure,
) -> Sides:
    """Runs by data and network, then by side; of several recipes of one side, the one best on validation."""
    places: dict[tuple[str, Network | None], dict[str, list[Run]]] = {}
    for run in runs:
        places.setdefault((data(run), run.network), {}).setdefault(side(run), []).append(run)
    return {
        place: {name: chosen for name, m in of.items() if (chosen := representative(group(m), measure, on_validation))}
        for place, of in places.items()
    }


def votes(run: Run) -> tuple[float, float] | None:
    """Test accuracy under 5 masks and under one of the same checkpoint; of several, of best.ckpt or the latest step."""

    def under(masks: int) -> dict[tuple[str, int | None], Score]:
        tests = [score for score in run.own_scores if score.verb == "test" and "test/accuracy" in score.metrics]
        return {(s.checkpoint, s.step): s for s in tests if Run.evaluated(s) == ("mode", masks)}

    many, one = under(VOTES), under(1)
    shared = max(set(many) & set(one), key=lambda key: ("best" in key[0], key[1] or 0), default=None)
    return (many[shared].metrics["test/accuracy"], one[shared].metrics["test/accuracy"]) if shared else None
