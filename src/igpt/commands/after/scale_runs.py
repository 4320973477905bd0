"""The runs of a study of `igpt scale`, one after the other, and its record."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igpt.commands.after.scale_study import Study
from igpt.commands.tune import attached, differences
from igpt.scaling import Measure, Planned, draw, page
from igpt.system import LOST, UserError, UserErrors, atomic_path, remove

RECORD = "scale.json"


@dataclass(frozen=True)
class Result:
    """What came of a run; None is what was not asked for.

    Validation loss in nats per pixel, accuracy of its best layer as shares of 1, Frechet distance of its samples.
    """

    name: str
    val_loss: float
    probe_layer: int | None
    val_accuracy: float | None
    test_accuracy: float | None
    distance: float | None


@dataclass(frozen=True)
class Runs:
    """The runs of a study as independent pieces of work, for any engine.

    Args:
        study: whose runs.
        place: folder that the commands start in, which paths are relative to.
        threads: of each command; None leaves them to the machine.
    """

    study: Study
    place: Path
    threads: int | None = None

    def run(self, planned: Planned) -> Result:
        """Train, probe and judge one run, as far as that is not done; the result."""
        study, folder = self.study, self.place / self.study.folder / planned.name
        log = folder.with_name(f"{planned.name}.log")
        fit, *after = study.words(planned)
        if not is_trained(folder, planned):
            print(f"{planned.name}: {planned.steps:,} steps, see {log}", flush=True)
            self.started(fit, log)
        for words in after:
            if not is_done(words[0], folder, study):
                self.started(words, log.with_suffix(f".{words[0]}.log"))
                if words[0] == "probe":
                    remove(folder / "probe" / "features")  # of all runs together, they would fill a disk
        return result_of(study, folder)

    def started(self, words: list[str], log: Path) -> None:
        """Run one command; a UserError in its own words where it refused."""
        code = attached(words, log, self.place, self.threads)
        said = log.read_text(encoding="utf-8", errors="replace")
        if code == 2:
            lines = re.findall(rf"(?m)^igpt {words[0]}: (.*)$", said) or [f"igpt {words[0]} refused; see {log}"]
            raise UserErrors([UserError(line) for line in lines])
        if code not in (0, LOST):
            raise RuntimeError(f"igpt {words[0]} broke off with exit code {code}; see {log}; the same command goes on")


Engine = Callable[[Runs, Sequence[Planned]], Iterator[Result]]


def train(study: Study, threads: int | None, engine: Engine) -> list[Result]:
    """Do all runs that are not done; the record is written after each. Results come in the order of the plan."""
    place = Path.cwd()
    done = {run.name for run in study.runs if is_finished(study, place / study.folder / run.name, run)}
    results = {name: result_of(study, place / study.folder / name) for name in done}
    missing = [run for run in study.runs if run.name not in done]
    for result in engine(Runs(study, place, threads), missing):
        results[result.name] = result
        print(
            f"{len(results)} of {len(study.runs)} runs: {result.name}, validation loss {result.val_loss:.4f}",
            flush=True,
        )
        with atomic_path(study.folder / RECORD) as path:
            path.write_text(json.dumps(content(study, ordered(study, results)), indent=2) + "\n", encoding="utf-8")
    return ordered(study, results)


def ordered(study: Study, results: dict[str, Result]) -> list[Result]:
    """Results in the order of the plan."""
    return [results[run.name] for run in study.runs if run.name in results]


def is_finished(study: Study, folder: Path, run: Planned) -> bool:
    """Whether every command of a run has been done."""
    return is_trained(folder, run) and all(is_done(words[0], folder, study) for words in study.words(run)[1:])


def is_done(verb: str, folder: Path, study: Study) -> bool:
    """Whether a trained run has been probed, or its samples judged as the study says."""
    if verb == "probe":
        return (folder / "probe" / "probe.json").exists()
    try:
        return study.samples.fits(json.loads((folder / "evaluate" / "evaluate.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_trained(folder: Path, run: Planned) -> bool:
    """Whether a run came to its last step."""
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return bool(found["steps"] == run.steps and found["stopped"] is None)
    except (OSError, ValueError, KeyError):
        return False


def result_of(study: Study, folder: Path) -> Result:
    """What a run that is done has written; a UserError where its loss was lost."""
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if found["stopped"] or found["val_loss"] is None:
        raise UserError(f"{folder}: {found['stopped'] or 'no validation loss'}; give a smaller rate and another --out")
    best, distance = {"layer": None, "val_accuracy": None, "test_accuracy": None}, None
    if study.probe:
        probed = json.loads((folder / "probe" / "probe.json").read_text(encoding="utf-8"))["methods"]["lbfgs"]
        best = next(row for row in probed["layers"] if row["layer"] == probed["best_layer"])
    if study.samples.num != 0:
        judged = json.loads((folder / "evaluate" / "evaluate.json").read_text(encoding="utf-8"))
        distance = judged["figures"]["samples"]["frechet"]
    return Result(folder.name, found["val_loss"], best["layer"], best["val_accuracy"], best["test_accuracy"], distance)


def content(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    """What scale.json holds before there are fits."""
    planned = [asdict(run) for run in study.runs]
    known = {"settings": study.settings, "rate": study.rate, "probe": study.probe, "planned": planned}
    known["samples"] = asdict(study.samples)
    plain: dict[str, Any] = json.loads(json.dumps(known, default=str))
    return {"config": study.config, **plain, "results": [asdict(result) for result in results]}


def check_folder(study: Study) -> None:
    """Raise a UserError where the folder holds another study, or what is of none."""
    record = study.folder / RECORD
    if study.folder.exists() and not study.folder.is_dir():
        raise UserError(f"--out {study.folder} is a file; name a folder")
    if record.exists():
        try:
            old = json.loads(record.read_text(encoding="utf-8"))
            off = [name for name in ("settings", "rate", "probe", "planned") if old[name] != content(study, ())[name]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{record} was not written by igpt scale; give another --out") from error
        if off:
            keys = differences(old["settings"], content(study, ())["settings"]) or ["budgets, sizes or options"]
            raise UserError(f"--out {study.folder} holds another study ({', '.join(keys)} differ); give another --out")
    names = "|".join(re.escape(run.name) for run in study.runs)
    known = re.compile(rf"\..*|scale\.(json|md|png)|({names})(\.\d+|(\.probe|\.evaluate)?\.log)?")
    for path in sorted(study.folder.iterdir()) if study.folder.is_dir() else ():
        if not known.fullmatch(path.name):
            raise UserError(f"--out {study.folder} holds {path.name}, which is not of this study; give another --out")


def written(study: Study, results: Sequence[Result]) -> str:
    """Fit all measures; write scale.json with the fits, scale.png and scale.md, and return its text."""
    measures = measures_of(study, results)
    fits = {measure.name.lower(): asdict(measure.fit) for measure in measures}
    text = page(study.config, study.runs, measures, "scale.png")
    paths = (study.folder / name for name in (RECORD, "scale.md", "scale.png"))
    with ExitStack() as stack:  # all three, or none
        record, plain, picture = (stack.enter_context(atomic_path(path)) for path in paths)
        draw(picture, study.runs, measures)
        plain.write_text(text, encoding="utf-8")
        record.write_text(json.dumps({**content(study, results), "fits": fits}, indent=2) + "\n", encoding="utf-8")
    return text


def measures_of(study: Study, results: Sequence[Result]) -> list[Measure]:
    """What the study has measured, each with its fits."""
    names = ("budget", "parameters", "tokens")
    runs = [np.array([getattr(run, name) for run in study.runs], float) for name in names]
    found = [Measure.of("Loss", "validation loss, nats per pixel", runs, [one.val_loss for one in results], ".4f")]
    if study.probe:
        shares = [float(one.test_accuracy or 0) for one in results]
        found.append(Measure.of("Accuracy", "test accuracy of the best layer", runs, shares, ".3f", maximise=True))
    if study.samples.num != 0:
        space = study.samples.source + (f", layer {study.samples.layer}" if study.samples.layer else "")
        axis, apart = f"Frechet distance of samples\nin {space}", [float(one.distance or 0) for one in results]
        found.append(Measure.of("Distance", axis, runs, apart, ".4g", logarithm=True))
    return found
