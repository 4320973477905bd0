"""Tables of where figures come from: the data of runs and probes, and earlier probes that were moved aside."""

from pathlib import Path

from igpt.report.content import Table, columns
from igpt.report.judging import within
from igpt.report.records import Data, Probe, Protocol, Run
from igpt.report.tables import NONE, number

NAMED = 8  # runs in one cell


def data_sets(runs: list[Run]) -> Table:
    """One row for all data of one identity in one folder, and which runs were trained, probed and scored on them."""
    trained: dict[tuple[Data, str | None], list[str]] = {}
    evaluated: dict[tuple[Data, str | None], list[str]] = {}
    for run in runs:
        trained.setdefault(place_of(run.data), []).append(run.name)
        others = [probe.data for probe in run.probes] + [score.data for score in run.scores if score.data]
        for place in dict.fromkeys(map(place_of, others)):
            evaluated.setdefault(place, []).append(run.name)
    rows = [
        [
            data.label,
            number(root),
            number(data.fingerprint),
            number(data.classes),
            listed(trained.get((data, root), [])),
            listed(evaluated.get((data, root), [])),
        ]
        for data, root in {**trained, **evaluated}
    ]
    heads = columns("Data", "Folder", "Fingerprint", ">Classes", "Trained on them", "Probed or scored on them")
    note = (
        "Figures are compared only where the data are the same: their fingerprint (made of labels and some pictures), "
        "split and class names, not their folder. Records of older versions, and weights from elsewhere, do not tell "
        "all of it."
    )
    return Table(heads, rows, note, "Data")


def place_of(data: Data) -> tuple[Data, str | None]:
    """What a record says of the data themselves, without the choices of a run, and where they lie."""
    return Data(
        data.name, data.resolution, known=data.known, apart=data.apart, fingerprint=data.fingerprint,
        classes=data.classes,
    ), data.root  # fmt: skip


def listed(names: list[str]) -> str:
    """Names in one cell."""
    more = len(names) - NAMED
    return NONE if not names else ", ".join(names[:NAMED]) + (f" and {more} others" if more > 0 else "")


def moved_aside(runs: list[Run]) -> Table | None:
    """Earlier probes of each run, which later ones of another checkpoint, other data or options moved aside."""
    rows = [
        [
            run.name,
            in_run(run, probe.folder),
            Path(probe.checkpoint).name if probe.checkpoint else NONE,
            number(probe.step),
            probe.data.label,
            result.name,
            options(probe),
            str(result.best_layer),
            within(result.best.test),
        ]
        for run in runs
        for probe in run.aside
        for result in probe.methods.values()
    ]
    heads = columns("Run", "Folder", "Checkpoint", ">Step", "Data", "Method", "Options", ">Best layer", ">Test")
    note = (
        "A later probe of another checkpoint, other data or options moved these aside; nothing else here counts them."
    )
    return Table(heads, rows, note, "Earlier probes") if rows else None


def in_run(run: Run, folder: Path) -> str:
    """A folder as seen from the run's."""
    return str(folder.relative_to(run.folder))


def options(probe: Probe) -> str:
    """What changes a probe's figures, in a few words: how features were taken, and of how many images."""
    how: Protocol = probe.protocol
    grid = None if how.grid is None else "mean" if how.grid == 1 else f"{how.grid}x{how.grid} cells"
    masks = f"{how.masks} masks" if how.masks else None
    raw = "not standardised" if how.standardised is False else None
    layers = f"layers {', '.join(str(score.layers[0]) for score in probe.result.layers)}"
    images = " / ".join(number(probe.images.get(name)) for name in ("train", "val", "test"))
    return ", ".join(part for part in (how.norm, grid, masks, raw, how.dtype, layers, f"images {images}") if part)
