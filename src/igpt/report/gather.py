"""From run folders to records. Everything in a folder is optional but config.yaml or a checkpoint."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from igpt.checkpoints import step_checkpoints
from igpt.report.describing import describe, read_config, read_saved
from igpt.report.events import SHOWN, read_events
from igpt.report.leaving import Say, attempt, warn
from igpt.report.pictures import read_picture
from igpt.report.reading import UNKNOWN, read_aside, read_probes, read_scores
from igpt.report.records import Data, Events, Picture, Probe, Run, Score
from igpt.system import UserError


def gather_all(folders: list[str], say: Say = warn) -> list[Run]:
    """The runs in the order given; one named twice counts once, and runs of equal names get their folders as names.

    Args:
        folders: of runs.
        say: takes a line about everything that cannot be read, which is left out.

    Raises:
        UserError: no run is named, there is no such folder, or nothing is left.
    """
    if not folders:
        raise UserError("no run is named; give folders of runs, such as: igpt report runs/digits_ar --out report.html")
    for folder in folders:
        if not os.path.lexists(folder):
            raise UserError(f"run {folder}: there is no such folder; give the folder of a run, such as runs/digits_ar")
    places: dict[str, str] = {}
    for folder in folders:
        places.setdefault(os.path.realpath(folder), folder)
    named = list(places.values())
    if len(named) == 1:
        return told_apart([gather(named[0], say)])
    found = [attempt(partial(gather, folder, say), say, None) for folder in named]
    runs = told_apart([run for run in found if run])
    if not runs:
        raise UserError(f"none of these {len(named)} folders holds a run; give folders such as runs/digits_ar")
    names = Counter(run.name for run in runs)
    return [replace(run, name=run.folder) if names[run.name] > 1 else run for run in runs]


def gather(folder: str, say: Say = warn) -> Run:
    """Everything that the files of one run folder say; what cannot be read of them is left out.

    Raises:
        UserError: there is no such folder, or no file in it tells what kind of run it is.
    """
    path = Path(folder)
    if not os.path.isdir(path):
        raise UserError(f"run {folder}: there is no such folder; give the folder of a run, such as runs/digits_ar")
    config = attempt(partial(read_config, path / "config.yaml"), say, None)
    saved = read_saved(path / "checkpoints", say)
    if config is None and saved is None:
        raise UserError(
            f"run {folder} holds neither config.yaml nor checkpoints that can be read; give the folder of a run of "
            "igpt fit"
        )
    scores, events = read_evaluations(path, say)
    run = Run(
        name=os.path.basename(os.path.abspath(folder)),
        folder=folder,
        **describe(path, config, saved, say),
        events=events,
        probes=read_probes(path, say),
        aside=read_aside(path, say),
        scores=scores,
        pictures=read_pictures(path, say),
        commands=attempt(partial(read_lines, path / "commands.txt"), say, []),
        steps_saved=sorted(step_checkpoints(path / "checkpoints")),
    )
    return replace(run, data=scored_data(run)) if run.data == UNKNOWN else run


def read_evaluations(folder: Path, say: Say) -> tuple[list[Score], Events]:
    """scores.json and events; these hold figures of tests too, but which data they were on, the other alone tells."""
    unread: list[str] = []
    scores: list[Score] = attempt(partial(read_scores, folder / "scores.json", unread.append), unread.append, [])
    for line in unread:
        say(line)
    events = read_events(folder, say)
    return scores, replace(events, tested={}) if unread else events


def read_pictures(folder: Path, say: Say) -> dict[str, Picture]:
    """The pictures that `igpt sample` drew beside the run."""
    files = {name: folder / f"{name}.png" for name in SHOWN}
    found = {name: attempt(partial(read_picture, path), say, None) for name, path in files.items() if path.is_file()}
    return {name: picture for name, picture in found.items() if picture}


def told_apart(runs: list[Run]) -> list[Run]:
    """The runs with labels of data that are equal only where all that is known of the data is."""
    runs = [identified(run) for run in runs]
    found: dict[str, list[str]] = {}
    for data in (data for run in runs for data in all_data(run)):
        if data.known not in found.setdefault(data.plain, []):
            found[data.plain].append(data.known)

    def named(data: Data) -> Data:
        several = found[data.plain]
        return replace(data, apart=f"#{several.index(data.known) + 1}" if len(several) > 1 else "")

    return [with_data(run, named) for run in runs]


def all_data(run: Run) -> list[Data]:
    """What a run was trained on, then what it was probed and scored on."""
    return [run.data, *(p.data for p in [*run.probes, *run.aside]), *(s.data for s in run.scores if s.data)]


def with_data(run: Run, change: Callable[[Data], Data]) -> Run:
    """The run with all its data changed."""

    def probes(of: list[Probe]) -> list[Probe]:
        return [replace(probe, data=change(probe.data)) for probe in of]

    def scores(of: list[Score]) -> list[Score]:
        return [replace(score, data=change(score.data)) if score.data else score for score in of]

    return replace(
        run, data=change(run.data), probes=probes(run.probes), aside=probes(run.aside), scores=scores(run.scores)
    )


def identified(run: Run) -> Run:
    """A run of a version that wrote no identity of its data, with that of a later record of the same arguments."""
    if run.data.known != run.data.arguments:
        return run
    same = (data for data in all_data(run) if data.plain == run.data.plain and data.arguments == run.data.arguments)
    later = next((data for data in same if data.known != run.data.arguments), run.data)
    about = {name: getattr(later, name) for name in ("known", "root", "fingerprint", "classes")}

    def named(data: Data) -> Data:
        return replace(data, **about) if data == run.data or data.known == run.data.known else data

    return with_data(run, named)


def scored_data(run: Run) -> Data:
    """Name and resolution of what a run was last tested on, else validated; unknown where no score tells."""
    known = [score for score in reversed(run.scores) if score.data is not None]
    last = max(known, key=lambda score: score.verb == "test", default=None)
    return Data(last.data.name, last.data.resolution) if last and last.data else UNKNOWN


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty; none where there is no file.

    Raises:
        UserError: it cannot be read.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); allow it, or move it away") from error
    return [line.strip() for line in text.split("\n") if line.strip()]
