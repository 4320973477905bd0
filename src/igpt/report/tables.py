"""The tables of the page, from records to text cells."""

import math
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igpt.report.comparing import group, kind_of, labels, percent, shape, trace, tuned_accuracy, votes
from igpt.report.published import PUBLISHED, Published, beside
from igpt.report.schema import Data, LayerScore, Point, Probe, Run, Score

NONE = "—"
LAST_VALUES = 5  # of the training loss, which is a single batch's each
NAMED = 8  # runs in one cell
CONTEXT = "Published figures on other data"
FOLDED = ("Every layer", "Checkpoints: loss and probe", "Networks", CONTEXT)
SPLITS = ("train", "val", "test")


class Table(NamedTuple):
    """Cells are text, the first names the row; a column's head begins with ">" for numbers, with "$" for commands."""

    heads: list[str]
    rows: list[list[str]]
    note: str = ""
    title: str = ""

    @property
    def folded(self) -> bool:
        """Whether the page shows its title alone until it is opened."""
        return self.title in FOLDED


def table(heads: str, rows: Iterable[Sequence[object]], note: str = "", title: str = "") -> Table | None:
    """A table of rows, with heads between bars; None where there are no rows."""
    cells = [list(map(cell, row)) for row in rows]
    return Table(heads.split("|"), cells, note, title) if cells else None


def cell(value: Any) -> str:
    """Anything that may be missing, as a cell."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def both_units(nats: float | None) -> str | None:
    """A loss in nats and, in brackets, bits."""
    return None if nats is None else f"{nats:.3f} ({nats / math.log(2):.3f})"


def share(accuracy: float | None) -> str | None:
    """An accuracy in percent."""
    return None if accuracy is None else f"{100 * accuracy:.1f} %"


def plain(number: int | None) -> str | None:
    """A number that names something, such as a seed."""
    return None if number is None else str(number)


def listed(names: list[str]) -> str:
    """The first of some names in one cell."""
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def final(points: list[Point], most: int = 1) -> float | None:
    """Mean of the last values of a curve."""
    last = [point.value for point in points[-most:]]
    return sum(last) / len(last) if last else None


def summary(runs: list[Run]) -> Table | None:
    """One row a run."""
    heads = "Run|Objective|Data|>Best layer|>Probe|>Test accuracy|>Test loss|>Validation loss|>Training loss|>Steps"
    note = (
        "Losses are nats per pixel, in brackets bits per pixel: of all pixels for AR, of masked ones for BERT, so the "
        "two are different quantities; of fine-tuned runs L_GEN alone. Training loss is the mean of the last "
        f"{LAST_VALUES} logged batches. Probe: test accuracy of the layer with the best validation accuracy. Test "
        "accuracy is that of fine-tuned runs."
    )
    return table(heads, map(summary_row, runs), note)


def networks(runs: list[Run]) -> Table | None:
    """Seed and shape of every run."""
    rows = (
        (run.name, plain(run.seed), shape(run.network) + (f", {run.network.n_heads} heads" if run.network else ""),
         run.parameters, beginning(run))
        for run in runs
    )  # fmt: skip
    return table("Run|>Seed|Network|>Parameters|Began with", rows, title="Networks")


def beginning(run: Run) -> str | None:
    """The checkpoint that a run began with, or new weights; None where no file tells."""
    if run.began:
        return f"{run.began.checkpoint}{'' if run.began.step is None else f', step {run.began.step:,}'}"
    return "new weights" if run.origin == "scratch" or (run.objective != "Joint" and run.steps) else None


def descent(run: Run) -> str:
    """The kind of a run, and of which run it is a continuation."""
    if run.began is None:
        return kind_of(run).name
    path, step = Path(run.began.checkpoint), run.began.step
    source = path.parents[1].name if path.parent.name == "checkpoints" else path.name
    return f"{kind_of(run).name}, from {source}" + ("" if step is None else f" at step {step:,}")


def untestable(findings: Sequence[Any]) -> Table | None:
    """Claims that these runs have no figures for, and what it takes."""
    return table("Claim|What it takes", ((one.claim, one.missing) for one in findings), title="Not testable yet")


def summary_row(run: Run) -> list[object]:
    """Cells of one run."""
    tag, best = run.loss_tag, run.probe.result.best if run.probe else None
    on = f" on {run.probe.data.label}" if run.probe and run.probe.data.label != run.data.label else ""
    unfinished = run.steps is not None and run.max_steps is not None and run.steps < run.max_steps
    validated = None if run.steps is None else run.val_loss_at(run.steps)
    val = validated.value if validated else final(run.curve(f"val/{tag}"))
    losses = [run.tested(tag), val, final(run.curve(f"train/{tag}"), LAST_VALUES)]
    return [
        run.name,
        descent(run),
        run.data.label,
        plain(best.layer) if best else None,
        f"{share(best.test_accuracy)}{on}" if best else None,
        tuned_cell(run),
        *(None if run.weight == 0 else both_units(loss) for loss in losses),
        f"{cell(run.steps)} of {cell(run.max_steps)}" if unfinished else run.steps,
    ]


def tuned_cell(run: Run) -> str | None:
    """Test accuracy of a fine-tuned run, and the last one on validation."""
    tested, val = share(tuned_accuracy(run)), share(final(run.curve("val/accuracy")))
    return f"{tested or NONE} (validation {val})" if val and run.objective == "Joint" else tested


def data_sets(runs: list[Run]) -> Table | None:
    """One row for all data of one identity in one folder, and which runs were trained, probed and scored on them."""
    users: dict[tuple[Data, str | None], tuple[list[str], list[str]]] = {}
    for index in (0, 1):
        for run in runs:
            others = [*(probe.data for probe in run.probes), *(score.data for score in run.scores if score.data)]
            for key in dict.fromkeys((themselves(data), data.root) for data in (others if index else [run.data])):
                users.setdefault(key, ([], []))[index].append(run.name)
    rows = [
        (data.label, root, data.fingerprint, data.classes, listed(trained), listed(others))
        for (data, root), (trained, others) in users.items()
    ]
    note = (
        "Figures are compared only where the data are the same: their fingerprint (made of labels and some pictures), "
        "split and class names, not their folder. Records of older versions, and weights from elsewhere, do not tell "
        "all of it."
    )
    return table("Data|Folder|Fingerprint|>Classes|Trained on them|Probed or scored on them", rows, note, "Data")


def themselves(data: Data) -> Data:
    """Data without the choices of a run, such as its batch size."""
    kept = ("resolution", "identity", "apart", "fingerprint", "classes")
    return Data(data.name, **{name: getattr(data, name) for name in kept})


def chosen(score: LayerScore) -> str:
    """What validation chose, such as the strength of the penalty."""
    given = [(name, getattr(score, name)) for name in ("strength", "rate", "k")]
    return ", ".join(f"{name} {value:g}" for name, value in given if value is not None)


def pooling(probe: Probe) -> str | None:
    """How a layer's positions became one feature."""
    grid = probe.features.grid
    return None if grid is None else "mean" if grid == 1 else f"{grid}x{grid} cells"


def images(probe: Probe) -> str:
    """Sizes of the splits."""
    return " / ".join(cell(probe.images.get(name)) for name in SPLITS)


def probes(runs: list[Run]) -> Table | None:
    """Best layers, raw pixels and layers side by side, with everything that changes such a number."""
    rows = (row for run in runs if run.probe for row in probe_rows(run, run.probe))
    methods = [item for run in runs if run.probe for item in run.probe.methods.items()]
    ways = {f"{name}: {result.protocol}." for name, result in methods if result.protocol}
    note = " ".join(["Images: training, validation and test.", *sorted(ways)])
    heads = "Run|Data|>Step|Layer|Method|>Validation|>Test|Chosen|Norm|Pooling|>Masks|Kept as|Standardised|Images|>Seed"
    return table(heads, rows, note, "Probes and their protocol")


def probe_rows(run: Run, probe: Probe) -> Iterator[list[object]]:
    """Rows of the last probed checkpoint."""
    how = probe.features
    for method, result in probe.methods.items():
        together = f"{', '.join(map(str, result.concat.layers))} side by side" if result.concat else ""
        scores = {f"{result.best_layer} (best)": result.best, "raw pixels": result.raw_pixels, together: result.concat}
        for layer, score in scores.items():
            if score:
                raw = score is result.raw_pixels
                features = [None] * 4 if raw else [how.norm, pooling(probe), how.masks, how.dtype]
                accuracies = [share(score.val_accuracy), share(score.test_accuracy), chosen(score)]
                about = [run.name, probe.data.label, probe.step, layer, method, *accuracies]
                yield [*about, *features, how.standardise, images(probe), plain(run.seed)]


def all_layers(runs: list[Run]) -> Table | None:
    """Accuracy of every probed layer."""
    rows = [
        (run.name, method, plain(score.layer), share(score.val_accuracy), share(score.test_accuracy), chosen(score))
        for run in runs if run.probe for method, result in run.probe.methods.items() for score in result.layers
    ]  # fmt: skip
    return table("Run|Method|>Layer|>Validation|>Test|Chosen", rows, title="Every layer")


def moved_aside(runs: list[Run]) -> Table | None:
    """Earlier probes of each run, which later ones of another checkpoint, other data or options moved aside."""
    rows = [
        (run.name, str(probe.folder.relative_to(run.folder)), Path(probe.checkpoint or "").name, probe.step,
         probe.data.label, method, options(probe), plain(result.best_layer), share(result.best.test_accuracy))
        for run in runs for probe in run.aside for method, result in probe.methods.items()
    ]  # fmt: skip
    heads = "Run|Folder|Checkpoint|>Step|Data|Method|Options|>Best layer|>Test"
    note = "A later probe of another checkpoint, other data or options moved these aside; they count nowhere else."
    return table(heads, rows, note, "Earlier probes")


def options(probe: Probe) -> str:
    """What changes a probe's figures, in a few words: how features were taken, and of how many images."""
    how = probe.features
    masks, raw = f"{how.masks} masks" if how.masks else None, "not standardised" if how.standardise is False else None
    layers = f"layers {', '.join(str(score.layer) for score in probe.result.layers)}"
    parts = (how.norm, pooling(probe), masks, raw, how.dtype, layers, f"images {images(probe)}")
    return ", ".join(part for part in parts if part)


def losses_and_probes(runs: list[Run]) -> Table | None:
    """The numbers behind loss against accuracy, one row a checkpoint."""
    rows = []
    for run in runs:
        for probe, loss in trace(run):
            at, best = run.val_loss_at(probe.step), probe.result.best
            ending = (both_units(loss), probe.method, plain(best.layer), share(best.test_accuracy))
            rows.append((run.name, probe.step, at.step if at else None, *ending))
    heads = "Run|>Checkpoint step|>Validated at step|>Validation loss, nats (bits)|Method|>Best layer|>Probe"
    return table(heads, rows, title="Checkpoints: loss and probe")


def likelihoods(runs: list[Run]) -> Table | None:
    """Exact likelihoods of test images: of each run, of the latest step on its own data, and the last of several."""
    rows = []
    for run in runs:
        known = [(score, score.likelihood) for score in reversed(run.own_scores) if score.likelihood]
        for score, found in sorted(known, key=lambda one: -(one[0].step or 0))[:1]:
            about = (run.name, (score.data or run.data).label, score.step, score.precision, found.images)
            units = (1.0, math.log(2))
            rows.append((*about, *(f"{found.mean_nats / unit:.4f} ± {found.std_nats / unit:.4f}" for unit in units)))
    note = "Mean and standard deviation over the test images of each image's negative log-likelihood per pixel."
    return table("Run|Data|>Step|Precision|>Test images|>Nats per pixel|>Bits per pixel", rows, note)


def low_data(runs: list[Run]) -> Table | None:
    """Accuracy with few labels: probes on subsets, and fine-tuned runs that differ in their subset."""
    few = group(run for run in runs if run.data.labels_per_class and tuned_accuracy(run) is not None)
    found: list[tuple[str, str, int | None, list[float]]] = []
    for run in runs:
        for low in run.probe.low_data if run.probe else ():
            label = run.probe.data.label if run.probe else ""
            found.append((f"probe on {run.name}", label, low.labels_per_class, low.accuracies))
    for kind, name in labels(few).items():
        accuracies = [tuned_accuracy(run) or 0.0 for run in few[kind]]
        found.append((name, kind.data, kind.labels_per_class, accuracies))
    rows = [(how, data, plain(count), percent(of), len(of)) for how, data, count, of in found if of]
    note = "Mean and standard deviation over subsets of the training images."
    return table("How|Data|>Labels a class|>Test accuracy|>Subsets", rows, note)


def fine_tuned(runs: list[Run]) -> Table | None:
    """Every test of fine-tuned runs, with everything that changes such a number."""
    rows = [tuned_row(run, score) for run in runs if run.objective == "Joint" for score in tests(run)]
    heads = "Run|Kind|Data|>Test|Evaluation|>Masks|Checkpoint|>Step|>L_GEN weight|>Labels a class|Folded|"
    heads += ">Validation share|>Rate|>Batch|Precision|>Seed|>Subset"
    note = "Folded: trained on the validation images too. Masks play a part for BERT only."
    return table(heads, rows, note, "Fine-tuning and its protocol")


def tests(run: Run) -> list[Score]:
    """Tests of a run; what the events hold where there is no scores.json."""
    scores = [score for score in run.scores if score.verb == "test" and "test/accuracy" in score.metrics]
    accuracy = run.events.tested.get("test/accuracy")
    return scores or ([] if accuracy is None else [Score("test", {"test/accuracy": accuracy}, "not recorded")])


def tuned_row(run: Run, score: Score) -> list[object]:
    """Cells of one test."""
    data, of = score.data or run.data, run.data
    subset = of.subset_seed if of.labels_per_class else None
    about = [run.name, kind_of(run).name, data.label, share(score.metrics["test/accuracy"])]
    tested = [*(score.evaluation or (None, None)), score.checkpoint, score.step]
    trained = [run.weight, of.labels_per_class, of.fold_validation, of.val_share, run.learning_rate, of.batch_size]
    return [*about, *tested, *trained, run.precision, plain(run.seed), subset]


def published(runs: list[Run]) -> Table | None:
    """Published figures of the same data as some run's."""
    rows = [(*told(figure), found) for figure in PUBLISHED if (found := beside(figure, runs))]
    own = ", ".join(sorted({run.data.label for run in runs}))
    note = (
        "Published figures are not of this code. They compare with runs on the same data only, and with the same "
        f"pre-training data, size and protocol at that; these runs are on {own}."
    )
    return table("Published figure|Data|>Value|Source|These runs, same data", rows, note, "Published figures")


def context(runs: list[Run]) -> Table | None:
    """Published figures of data that no run here is on."""
    rows = (told(figure) for figure in PUBLISHED if not beside(figure, runs))
    return table("Published figure|Data|>Value|Source", rows, title=CONTEXT)


def told(figure: Published) -> tuple[str, str, str, str]:
    """Cells of a published figure."""
    return (f"{figure.measure}: {figure.model}", figure.data, figure.value, figure.source)


def missing(runs: list[Run]) -> Table | None:
    """One row for each thing that a run's folder does not hold yet, with the command that makes it."""
    return table("Run|Missing|$Made with", ((run.name, *row) for run in runs for row in lacking(run)))


def lacking(run: Run) -> Iterator[tuple[str, str]]:
    """What and with which command, for one run."""
    file, folder = Path(run.folder) / run.checkpoint, Path(run.folder)
    data = () if run.config == "config.yaml" else ("--data", "DATA")  # an imported run does not know its own
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    place = ("--name", named.name, "--runs_dir", named.parent, "--ckpt_path", file)
    test = command("test", "--config", folder / run.config, *data, *place)
    if run.steps != 0 and not run.curve("val/loss"):
        yield "events of training", command("fit", "--config", "configs/NAME.yaml")
    if run.objective == "Joint":
        if run.origin is None:
            yield "where it began: no config.yaml, or a resumed run's", command("fit", "--config", "configs/NAME.yaml")
        if tuned_accuracy(run) is None:
            yield "test accuracy", test
        elif run.core == "BERT" and votes(run) is None:
            yield "test under 5 masks and under 1, in scores.json", f"{test}; {test} --model.init_args.eval_masks 1"
        return
    if run.tested("loss") is None:
        yield "test loss", test
    elif run.objective == "AR" and not any(score.likelihood for score in run.own_scores):
        yield "exact likelihood of the test images", test
    if run.probe is None:
        yield "probe.json", command("probe", "--ckpt", file, *data)
    else:
        for step in sorted({*run.steps_saved} - {probe.step for probe in run.probes}):
            at = file.with_name(f"step={step:07d}.ckpt")
            yield f"probe at step {step:,}", command("probe", "--ckpt", at, *data)
        if not run.probe.low_data:
            yield "probes with few labels", command("probe", "--ckpt", file, *data, "--labels_per_class", 4, 25)
    for name, how in (("samples", ("--num", 64)), ("completions", (*data, "--rows", 8, "--num", 6))):
        if name not in run.pictures and name not in run.events.pictures:
            yield name, command("sample", "--ckpt", file, *how, "--out", folder / f"{name}.png")


def command(*words: object) -> str:
    """A command line that a shell takes as it stands."""
    return shlex.join(["igpt", *map(str, words)])
