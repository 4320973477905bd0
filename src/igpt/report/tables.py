"""The tables of the page, from records to text cells."""

import math
from collections.abc import Iterator

from igpt.report.content import Table, columns
from igpt.report.groups import group, kind_of, labels, shape
from igpt.report.judging import percent, within
from igpt.report.pairing import trace, tuned_accuracy, values
from igpt.report.published import PUBLISHED, beside
from igpt.report.records import LayerScore, Point, Probe, Run, Score

NONE = "—"
NATS_PER_BIT = math.log(2)
LAST_VALUES = 5  # of the training loss, which is a single batch's each


def both_units(nats: float | None) -> str:
    """A loss in nats and, in brackets, bits."""
    return NONE if nats is None else f"{nats:.3f} ({nats / NATS_PER_BIT:.3f})"


def number(value: int | float | str | None) -> str:
    """Anything that may be missing, as a cell."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def final(points: list[Point], most: int = 1) -> float | None:
    """Mean of the last values of a curve."""
    last = [point.value for point in points[-most:]]
    return sum(last) / len(last) if last else None


def summary(runs: list[Run]) -> Table:
    """One row a run."""
    heads = columns(
        "Run", "Objective", "Data", ">Best layer", ">Probe", ">Test accuracy", ">Test loss", ">Validation loss",
        ">Training loss", ">Steps", ">Seed", "Network", ">Parameters",
    )  # fmt: skip
    return Table(
        heads,
        [summary_row(run) for run in runs],
        "Losses are nats per pixel, in brackets bits per pixel: of all pixels for AR, of masked ones for BERT, so the "
        "two are different quantities; of fine-tuned runs L_GEN alone. Training loss is the mean of the last "
        f"{LAST_VALUES} logged batches. Probe: test accuracy of the layer with the best validation accuracy. Test "
        "accuracy is that of fine-tuned runs.",
    )


def summary_row(run: Run) -> list[str]:
    """Cells of one run."""
    tag, best = run.loss_tag, run.probe.result.best if run.probe else None
    validated = run.val_loss_at(run.steps) if run.steps is not None else None
    val = validated.value if validated else final(run.curve(f"val/{tag}"))
    losses = [run.tested(tag), val, final(run.curve(f"train/{tag}"), LAST_VALUES)]
    heads = f", {run.network.heads} heads" if run.network else ""
    return [
        run.name,
        kind_of(run).name,
        run.data.label,
        NONE if best is None else str(best.layers[0]),
        probed_on(run, within(best.test if best else None)),
        within(tuned_accuracy(run)),
        *[both_units(loss if run.generative else None) for loss in losses],
        steps(run),
        NONE if run.seed is None else str(run.seed),
        shape(run.network) + heads,
        number(run.parameters),
    ]


def steps(run: Run) -> str:
    """Steps of the last checkpoint, and of how many where training has not come to its end."""
    unfinished = run.steps is not None and run.max_steps is not None and run.steps < run.max_steps
    return f"{number(run.steps)} of {number(run.max_steps)}" if unfinished else number(run.steps)


def probed_on(run: Run, accuracy: str) -> str:
    """A probe's accuracy, with the data where they are not those of the training."""
    other = run.probe is not None and run.probe.data.label != run.data.label
    return f"{accuracy} on {run.probe.data.label}" if other and run.probe else accuracy


def losses_and_probes(runs: list[Run]) -> Table | None:
    """The numbers behind loss against accuracy, one row a checkpoint; None where there are none."""
    rows = []
    for run in runs:
        for probe, loss in trace(run) if run.objective != "Joint" else []:
            at = run.val_loss_at(probe.step)
            best = probe.result.best
            cells = [number(probe.step), number(at.step if at else None), both_units(loss), probe.method]
            rows.append([run.name, *cells, str(best.layers[0]), within(best.test)])
    if not rows:
        return None
    heads = columns(
        "Run", ">Checkpoint step", ">Validated at step", ">Validation loss, nats (bits)", "Method", ">Best layer",
        ">Probe",
    )  # fmt: skip
    return Table(heads, rows, title="Checkpoints: loss and probe", folded=True)


def likelihoods(runs: list[Run]) -> Table | None:
    """Exact likelihoods of test images."""
    rows = []
    for run in runs:
        score = latest_likelihood(run)
        if score is None or score.likelihood is None:
            continue
        found = score.likelihood
        spread = [f"{value:.4f} ± {sd:.4f}" for value, sd in in_both(found.mean, found.deviation)]
        about = [(score.data or run.data).label, number(score.step), number(score.precision), number(found.images)]
        rows.append([run.name, *about, *spread])
    if not rows:
        return None
    heads = columns("Run", "Data", ">Step", "Precision", ">Test images", ">Nats per pixel", ">Bits per pixel")
    return Table(
        heads,
        rows,
        "Mean and standard deviation over the test images of each image's negative log-likelihood per pixel.",
    )


def latest_likelihood(run: Run) -> Score | None:
    """The entry with a likelihood of the latest step, the last of several; on the run's own data."""
    return max((s for s in reversed(run.own_scores) if s.likelihood), key=lambda s: s.step or 0, default=None)


def in_both(mean: float, deviation: float) -> list[tuple[float, float]]:
    """Mean and deviation in nats and in bits."""
    return [(mean, deviation), (mean / NATS_PER_BIT, deviation / NATS_PER_BIT)]


def low_data(runs: list[Run]) -> Table | None:
    """Accuracy with few labels: probes on subsets, and fine-tuned runs that differ in their subset."""
    rows = [
        [f"probe on {run.name}", run.probe.data.label, str(entry.labels_per_class), percent(entry.accuracies),
         str(len(entry.accuracies))]
        for run in runs if run.probe for entry in run.probe.low_data if entry.accuracies
    ]  # fmt: skip
    few = {kind: members for kind, members in group(runs).items() if kind.labels_per_class}
    names = labels(list(few))
    for kind, members in few.items():
        if found := values(members, tuned_accuracy):
            rows.append([names[kind], kind.data, str(kind.labels_per_class), percent(found), str(len(found))])
    if not rows:
        return None
    heads = columns("How", "Data", ">Labels a class", ">Test accuracy", ">Subsets")
    return Table(heads, rows, "Mean and standard deviation over subsets of the training images.")


def probes(runs: list[Run]) -> Table | None:
    """Best layers, raw pixels and layers side by side, with everything that changes such a number."""
    rows = [row for run in runs if run.probe for row in probe_rows(run, run.probe)]
    heads = columns(
        "Run", "Data", ">Step", "Layer", "Method", ">Validation", ">Test", "Chosen", "Norm", "Pooling", ">Masks",
        "Kept as", "Standardised", "Images", ">Seed",
    )  # fmt: skip
    ways = {(r.name, r.protocol) for run in runs if run.probe for r in run.probe.methods.values() if r.protocol}
    note = " ".join(["Images: training, validation and test.", *(f"{name}: {how}." for name, how in sorted(ways))])
    return Table(heads, rows, note, "Probes and their protocol") if rows else None


def probe_rows(run: Run, probe: Probe) -> Iterator[list[str]]:
    """Rows of the last probed checkpoint."""
    how = probe.protocol
    pooling = NONE if how.grid is None else "mean" if how.grid == 1 else f"{how.grid}x{how.grid} cells"
    features = [how.norm or NONE, pooling, number(how.masks), how.dtype or NONE, number(how.standardised)]
    images = " / ".join(number(probe.images.get(name)) for name in ("train", "val", "test"))
    ending = [images, NONE if run.seed is None else str(run.seed)]
    start = [run.name, probe.data.label, number(probe.step)]

    def row(layer: str, method: str, score: LayerScore, taken: list[str]) -> list[str]:
        accuracies = [within(score.val), within(score.test)]
        return [*start, layer, method, *accuracies, score.chosen or NONE, *taken, *ending]

    for result in probe.methods.values():
        yield row(f"{result.best_layer} (best)", result.name, result.best, features)
        if result.raw_pixels:
            plain = [NONE, NONE, NONE, NONE, features[-1]]
            yield row("raw pixels", result.name, result.raw_pixels, plain)
        if result.concat:
            side_by_side = f"{', '.join(map(str, result.concat.layers))} side by side"
            yield row(side_by_side, result.name, result.concat, features)


def all_layers(runs: list[Run]) -> Table | None:
    """Accuracy of every probed layer."""
    rows = [
        [run.name, result.name, str(score.layers[0]), within(score.val), within(score.test), score.chosen or NONE]
        for run in runs if run.probe for result in run.probe.methods.values() for score in result.layers
    ]  # fmt: skip
    heads = columns("Run", "Method", ">Layer", ">Validation", ">Test", "Chosen")
    return Table(heads, rows, title="Every layer", folded=True) if rows else None


def fine_tuned(runs: list[Run]) -> Table | None:
    """Every test of fine-tuned runs, with everything that changes such a number."""
    rows = [tuned_row(run, score) for run in runs if run.objective == "Joint" for score in tests(run)]
    heads = columns(
        "Run", "Kind", "Data", ">Test", "Evaluation", ">Masks", "Checkpoint", ">Step", ">L_GEN weight",
        ">Labels a class", "Folded", ">Validation share", ">Rate", ">Batch", "Precision", ">Seed", ">Subset",
    )  # fmt: skip
    note = "Folded: trained on the validation images too. Masks play a part for BERT only."
    return Table(heads, rows, note, "Fine-tuning and its protocol") if rows else None


def tests(run: Run) -> list[Score]:
    """Tests of a run; what the events hold where there is no scores.json."""
    scores = [score for score in run.scores if score.verb == "test" and "test/accuracy" in score.metrics]
    accuracy = run.events.tested.get("test/accuracy")
    if scores or accuracy is None:
        return scores
    return [Score("test", {"test/accuracy": accuracy}, "not recorded")]


def tuned_row(run: Run, score: Score) -> list[str]:
    """Cells of one test."""
    evaluation, masks = Run.evaluated(score) or (NONE, None)
    data = score.data or run.data
    return [
        run.name,
        kind_of(run).name,
        data.label,
        within(score.metrics["test/accuracy"]),
        evaluation,
        number(masks),
        score.checkpoint or NONE,
        number(score.step),
        number(run.weight),
        number(run.data.labels_per_class),
        number(run.data.folded),
        number(run.data.val_share),
        number(run.learning_rate),
        number(run.data.batch_size),
        number(run.precision),
        NONE if run.seed is None else str(run.seed),
        number(run.data.subset_seed if run.data.labels_per_class else None),
    ]


def published(runs: list[Run]) -> Table:
    """Published figures; runs stand beside those of the same data, the others are context."""
    rows = []
    for figure in sorted(PUBLISHED, key=lambda figure: beside(figure, runs) is None):
        ours = beside(figure, runs) or "context only: no run here on these data"
        rows.append([f"{figure.measure}: {figure.model}", figure.label, figure.value, figure.source, ours])
    heads = columns("Published figure", "Data", ">Value", "Source", "These runs, same data")
    own = ", ".join(sorted({run.data.label for run in runs}))
    note = (
        f"Published figures are not of this code. They compare with runs on the same data only, and with the same "
        f"pre-training data, size and protocol at that; these runs are on {own}."
    )
    return Table(heads, rows, note, "Published figures")
