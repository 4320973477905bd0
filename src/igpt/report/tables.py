"""The tables of the page, from records to text cells; titles, columns and notes stand in words.yaml."""

import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from igpt.report.comparing import any_family, group, kind_of, labels, percent, shape, trace, tuned_accuracy, votes
from igpt.report.published import PUBLISHED, WORDS, beside
from igpt.report.schema import LayerScore, Likelihood, Point, Probe, Run, Score
from igpt.system import percent as one_percent

T = TypeVar("T")
NONE = "—"
LAST_VALUES = 5  # of the training loss, which is a single batch's each
NAMED = 8  # runs in one cell


class Table(NamedTuple):
    """Cells are text, the first names the row; a column's head begins with ">" for numbers, with "$" for commands."""

    heads: list[str]
    rows: list[list[str]]
    note: str = ""
    title: str = ""
    folded: bool = False  # the page shows the title alone until it is opened


def table(rows: Callable[[Any], Iterable[Sequence[object] | str]]) -> Callable[[Any], Table | None]:
    """Make a table of a function that yields its rows; a text among them is added to the note. None without rows."""
    words = WORDS["tables"][rows.__name__]

    def filled(about: Any) -> Table | None:
        found = list(rows(about))
        cells = [list(map(cell, row)) for row in found if not isinstance(row, str)]
        note = " ".join(filter(None, [words.get("note"), *(row for row in found if isinstance(row, str))]))
        title, folded = words.get("title", ""), words.get("folded", False)
        return Table(words["columns"], cells, note, title, folded) if cells else None

    return filled


def cell(value: Any) -> str:
    """Anything that may be missing, as a cell."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def known(write: Callable[[T], str], value: T | None) -> str | None:
    """A figure as it is written, if there is one."""
    return None if value is None else write(value)


both_units = partial(known, lambda nats: f"{nats:.3f} ({nats / math.log(2):.3f})")  # nats and, in brackets, bits
share = partial(known, one_percent)
plain = partial(known, str)  # of a number that names something, such as a seed


def final(points: list[Point], most: int = 1) -> float | None:
    """Mean of the last values of a curve."""
    last = [point.value for point in points[-most:]]
    return sum(last) / len(last) if last else None


@table
def summary(runs: list[Run]) -> Iterator[list[object]]:
    """One row a run."""
    for run in runs:
        best = run.probe.result.best if run.probe else None
        on = f" on {run.probe.data.label}" if run.probe and run.probe.data.label != run.data.label else ""
        validated = None if run.steps is None else run.val_loss_at(run.steps)
        val = validated.value if validated else final(run.curve(f"val/{run.loss_tag}"))
        losses = [run.tested(run.loss_tag), val, final(run.curve(f"train/{run.loss_tag}"), LAST_VALUES)]
        tested, validation = share(tuned_accuracy(run)), share(final(run.curve("val/accuracy")))
        if validation and run.objective == "Joint":
            tested = f"{tested or NONE} (validation {validation})"
        unfinished = run.steps is not None and run.max_steps is not None and run.steps < run.max_steps
        about = [run.name, kind_of(run).name + descent(run), run.data.label, plain(best.layer) if best else None]
        losses_shown = (None if run.weight == 0 else both_units(loss) for loss in losses)
        steps = f"{cell(run.steps)} of {cell(run.max_steps)}" if unfinished else run.steps
        yield [*about, f"{share(best.test_accuracy)}{on}" if best else None, tested, *losses_shown, steps]


def descent(run: Run) -> str:
    """Of which run it is a continuation; empty where it is of none, or no file tells."""
    if run.began is None:
        return ""
    path, step = Path(run.began.checkpoint), run.began.step
    source = path.parents[1].name if path.parent.name == "checkpoints" else path.name
    return f", from {source}" + ("" if step is None else f" at step {step:,}")


@table
def networks(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Seed, shape and beginning of every run."""
    for run in runs:
        new = run.origin == "scratch" or (run.objective != "Joint" and run.steps)
        began = "new weights" if new else None
        if run.began:
            began = run.began.checkpoint + ("" if run.began.step is None else f", step {run.began.step:,}")
        heads = f", {run.network.n_heads} heads" if run.network else ""
        yield run.name, plain(run.seed), shape(run.network) + heads, run.parameters, began


@table
def untestable(findings: Sequence[Any]) -> Iterator[tuple[object, ...]]:
    """Claims that these runs have no figures for, and what it takes."""
    return ((one.claim, one.missing) for one in findings)


@table
def data_sets(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """One row for all data of one identity in one folder, and which runs were trained, probed and scored on them."""
    users: dict[tuple[object, ...], tuple[list[str], list[str]]] = {}
    for index in (0, 1):
        for run in runs:
            keys = ((d.label, d.root, d.fingerprint, d.classes) for d in (run.evaluated if index else [run.data]))
            for key in dict.fromkeys(keys):
                users.setdefault(key, ([], []))[index].append(run.name)
    for about, by in users.items():
        more = (f" and {len(names) - NAMED} others" if len(names) > NAMED else "" for names in by)
        yield *about, *(", ".join(names[:NAMED]) + rest for names, rest in zip(by, more, strict=True))


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
    return " / ".join(cell(probe.images.get(name)) for name in ("train", "val", "test"))


@table
def probes(runs: list[Run]) -> Iterator[list[object] | str]:
    """Best layers, raw pixels and layers side by side, with everything that changes such a number."""
    ways = set()
    for run, probe in ((run, run.probe) for run in runs if run.probe):
        how = probe.features
        for method, result in probe.methods.items():
            ways |= {f"{method}: {result.protocol}."} if result.protocol else set()
            together = f"{', '.join(map(str, result.concat.layers))} side by side" if result.concat else ""
            scores = {f"{result.best_layer} (best)": result.best, "raw pixels": result.raw_pixels}
            for layer, score in (scores | {together: result.concat}).items():
                if score:
                    raw = score is result.raw_pixels
                    features = [None] * 4 if raw else [how.norm, pooling(probe), how.masks, how.dtype]
                    accuracies = [share(score.val_accuracy), share(score.test_accuracy), chosen(score)]
                    about = [run.name, probe.data.label, probe.step, layer, method, *accuracies]
                    yield [*about, *features, how.standardise, images(probe), plain(run.seed)]
    yield from sorted(ways)


@table
def all_layers(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Accuracy of every probed layer."""
    methods = ((run.name, *method) for run in runs if run.probe for method in run.probe.methods.items())
    for name, method, result in methods:
        for one in result.layers:
            yield name, method, plain(one.layer), share(one.val_accuracy), share(one.test_accuracy), chosen(one)


@table
def moved_aside(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Earlier probes of each run, which later ones of another checkpoint, other data or options moved aside."""
    for run, probe in ((one, probe) for one in runs for probe in one.aside):
        about = (str(probe.folder.relative_to(run.folder)), Path(probe.checkpoint or "").name, probe.step)
        for method, result in probe.methods.items():
            best = (plain(result.best_layer), share(result.best.test_accuracy))
            yield run.name, *about, probe.data.label, method, options(probe), *best


def options(probe: Probe) -> str:
    """What changes a probe's figures, in a few words: how features were taken, and of how many images."""
    how = probe.features
    masks, raw = f"{how.masks} masks" if how.masks else None, "not standardised" if how.standardise is False else None
    layers = f"layers {', '.join(str(score.layer) for score in probe.result.layers)}"
    return ", ".join(filter(None, (how.norm, pooling(probe), masks, raw, how.dtype, layers, f"images {images(probe)}")))


@table
def losses_and_probes(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """The numbers behind loss against accuracy, one row a checkpoint."""
    for run, (probe, loss) in ((one, checkpoint) for one in runs for checkpoint in trace(one)):
        at, best = run.val_loss_at(probe.step), probe.result.best
        figures = (both_units(loss), probe.method, plain(best.layer), share(best.test_accuracy))
        yield run.name, probe.step, at.step if at else None, *figures


@table
def likelihoods(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Exact likelihoods of test images: of each run, of the latest step on its own data, and the last of several.

    One that tells bits per dimension goes before one that does not; where no score has one, that of the probe is taken.
    """
    for run in runs:
        known: list[tuple[Score | Probe, Likelihood]]
        known = [(score, score.likelihood) for score in reversed(run.own_scores) if score.likelihood]
        if not known and run.probe and (probed := run.probed_likelihood) and probed.exact:
            known = [(run.probe, probed)]
        for of, found in sorted(known, key=lambda one: (-(one[0].step or 0), not of_rgb(one[1])))[:1]:
            units = (f"{found.mean_nats / unit:.4f} ± {found.std_nats / unit:.4f}" for unit in (1.0, math.log(2)))
            precision = found.precision or getattr(of, "precision", None)
            yield run.name, (of.data or run.data).label, of.step, precision, found.images, *units, of_rgb(found)


def of_rgb(found: Likelihood) -> str | None:
    """Bits per dimension of RGB, where they are known: of bytes, or of a palette's tokens and within their cells."""
    learned, uniform = found.bits_per_dim_learned, found.bits_per_dim_uniform
    if learned is not None and uniform is not None:
        return f"{learned:.4f} (uniform cells {uniform:.4f})"
    return known("{:.4f}".format, found.bits_per_dim)


@table
def families(runs: list[Run]) -> Iterator[list[object]]:
    """Pre-training runs of igpt's networks beside those of other families, with what each costs and gives."""
    for run in runs if any_family(runs) else []:
        if run.objective == "Joint":
            continue
        exact = next(
            (found for score in run.own_scores if score.likelihood and (found := of_rgb(score.likelihood))), None
        )
        probed = of_rgb(run.probed_likelihood) if run.probed_likelihood else None
        bits = exact or known("{:.4f}".format, run.tested("bits_per_dim")) or probed
        result = run.probe.result if run.probe else None
        best = f"{result.best_layer} of 0..{result.layers[-1].layer}" if result else None
        raw = result.raw_pixels if result else None
        accuracies = (share(of.test_accuracy) if of else None for of in (result.best if result else None, raw))
        yield [run.name, kind_of(run).name, run.data.label, run.parameters, minutes(run), bits, best, *accuracies]


def minutes(run: Run) -> str | None:
    """How long it trained, from the images that it took and how many it took a second."""
    speeds = [point.value for point in run.curve("train/images_per_second") if point.value > 0]
    if not speeds or run.steps is None or run.data.batch_size is None:
        return None
    images = run.steps * run.data.batch_size
    return f"{images * sum(1 / speed for speed in speeds) / len(speeds) / 60:.1f}"


@table
def evaluations(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Samples as `igpt evaluate` judged them, above what they are to be compared with."""
    for run, judged in ((run, run.judged) for run in runs if run.judged):
        space = f"{judged.space.get('source')}, {judged.space.get('layer_name')}"
        for name, one in judged.figures.items():
            kernel = f"{one.kernel:.4g} ± {one.kernel_error:.2g}"
            rates = (f"{number:.3f}" for number in (one.precision, one.recall, one.density, one.coverage))
            yield run.name, name, one.images, f"{one.frechet:.4g}", kernel, *rates, f"{100 * one.copies:.1f} %", space


@table
def low_data(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Accuracy with few labels: probes on subsets, and fine-tuned runs that differ in their subset."""
    for run, probe in ((run, run.probe) for run in runs if run.probe):
        for low in probe.low_data:
            if of := low.accuracies:
                yield f"probe on {run.name}", probe.data.label, plain(low.labels_per_class), percent(of), len(of)
    few = group(run for run in runs if run.data.labels_per_class and tuned_accuracy(run) is not None)
    for kind, name in labels(few).items():
        of = [tuned_accuracy(run) or 0.0 for run in few[kind]]
        yield name, kind.data, plain(kind.labels_per_class), percent(of), len(of)


@table
def fine_tuned(runs: list[Run]) -> Iterator[list[object]]:
    """Every test of fine-tuned runs, with everything that changes such a number; without scores.json, of the events."""
    for run in (run for run in runs if run.objective == "Joint"):
        tests, of = [one for one in run.scores if one.verb == "test" and "test/accuracy" in one.metrics], run.data
        if not tests and "test/accuracy" in run.events.tested:
            tests = [Score("test", run.events.tested, "not recorded")]
        for score in tests:
            data, subset = score.data or run.data, of.subset_seed if of.labels_per_class else None
            about = [run.name, kind_of(run).name, data.label, share(score.metrics["test/accuracy"])]
            tested = [*(score.evaluation or (None, None)), score.checkpoint, score.step, run.weight]
            trained = [of.labels_per_class, of.fold_validation, of.val_share, run.learning_rate, of.batch_size]
            yield [*about, *tested, *trained, run.precision, plain(run.seed), subset]


@table
def published(runs: list[Run]) -> Iterator[tuple[object, ...] | str]:
    """Published figures of the same data as some run's."""
    for figure in PUBLISHED:
        if found := beside(figure, runs):
            yield f"{figure.measure}: {figure.model}", figure.data, figure.value, figure.source, found
    yield f"{', '.join(sorted({run.data.label for run in runs}))}."


@table
def context(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """Published figures of data that no run here is on."""
    of = (figure for figure in PUBLISHED if not beside(figure, runs))
    return ((f"{one.measure}: {one.model}", one.data, one.value, one.source) for one in of)


@table
def missing(runs: list[Run]) -> Iterator[tuple[object, ...]]:
    """One row for each thing that a run's folder does not hold yet, with the command that makes it."""
    return ((run.name, *row) for run in runs for row in lacking(run))


def lacking(run: Run) -> Iterator[tuple[str, str]]:
    """What and with which command, for one run."""
    file, folder = Path(run.folder) / run.checkpoint, Path(run.folder)
    data = () if run.config == "config.yaml" else ("--data", "DATA")  # an imported run does not know its own
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    place = ("--name", named.name, "--runs_dir", named.parent, "--ckpt_path", file)
    test = command("test", "--config", folder / run.config, *data, *place)
    fits = (line for line in run.commands if line.startswith("igpt fit "))
    fit = next(fits, command("fit", "--config", "configs/NAME.yaml"))
    if run.steps != 0 and not run.curve("val/loss"):
        yield "events of training", fit
    if run.objective == "Joint":
        if run.origin is None:
            yield "where it began: no config.yaml, or a resumed run's", fit
        if tuned_accuracy(run) is None:
            yield "test accuracy", test
        elif run.core == "BERT" and votes(run) is None:
            yield "test under 5 masks and under 1, in scores.json", f"{test}; {test} --model.init_args.eval_masks 1"
        return
    if run.tested("loss") is None:
        yield "test loss", test
    elif run.objective.startswith("AR") and not any(
        [run.probed_likelihood, *(score.likelihood for score in run.own_scores)]
    ):
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
