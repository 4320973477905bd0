"""The runs of a study of `igpt scale`, one after the other, and its record."""

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igpt.commands.after.scale_study import Study
from igpt.commands.tune import attached, differences
from igpt.scaling import Measure, Planned, draw, fit_study, page
from igpt.system import LOST, UserError, UserErrors, atomic_path, remove

RECORD = "scale.json"


@dataclass(frozen=True)
class Result:
    """What came of a run: validation loss in nats per pixel, and accuracy of its best layer as shares of 1."""

    name: str
    val_loss: float
    probe_layer: int | None
    val_accuracy: float | None
    test_accuracy: float | None


def train(study: Study) -> list[Result]:
    """Do all runs that are not done, in their order; the record is written after each."""
    results: list[Result] = []
    for number, run in enumerate(study.runs, 1):
        log = study.folder / f"{run.name}.log"
        if not is_trained(study, run):
            print(f"run {number} of {len(study.runs)}, {run.name}: {run.steps:,} steps, see {log}", flush=True)
            started(study.words(run)[0], log)
        if study.probe and not (study.folder / run.name / "probe" / "probe.json").exists():
            started(study.words(run)[1], log.with_suffix(".probe.log"))
            remove(study.folder / run.name / "probe" / "features")  # of all runs together, they would fill a disk
        results.append(result_of(study, run))
        with atomic_path(study.folder / RECORD) as path:
            path.write_text(json.dumps(content(study, results), indent=2) + "\n", encoding="utf-8")
    return results


def is_trained(study: Study, run: Planned) -> bool:
    """Whether a run came to its last step."""
    try:
        found = json.loads((study.folder / run.name / "result.json").read_text(encoding="utf-8"))
        return bool(found["steps"] == run.steps and found["stopped"] is None)
    except (OSError, ValueError, KeyError):
        return False


def result_of(study: Study, run: Planned) -> Result:
    """What a run that is done has written; a UserError where its loss was lost."""
    folder = study.folder / run.name
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if found["stopped"] or found["val_loss"] is None:
        raise UserError(f"{folder}: {found['stopped'] or 'no validation loss'}; give a smaller rate and another --out")
    if not study.probe:
        return Result(run.name, found["val_loss"], None, None, None)
    probed = json.loads((folder / "probe" / "probe.json").read_text(encoding="utf-8"))["methods"]["lbfgs"]
    best = next(row for row in probed["layers"] if row["layer"] == probed["best_layer"])
    return Result(run.name, found["val_loss"], best["layer"], best["val_accuracy"], best["test_accuracy"])


def started(words: list[str], log: Path) -> None:
    """Run one command; a UserError in its own words where it refused."""
    code = attached(words, log)
    said = log.read_text(encoding="utf-8", errors="replace")
    if code == 2:
        lines = re.findall(rf"(?m)^igpt {words[0]}: (.*)$", said) or [f"igpt {words[0]} refused; see {log}"]
        raise UserErrors([UserError(line) for line in lines])
    if code not in (0, LOST):
        raise RuntimeError(f"igpt {words[0]} broke off with exit code {code}; see {log}; the same command goes on")


def content(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    """What scale.json holds before there are fits."""
    planned = [asdict(run) for run in study.runs]
    known = {"settings": study.settings, "rate": study.rate, "probe": study.probe, "planned": planned}
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
    known = re.compile(rf"\..*|scale\.(json|md|png)|({names})(\.\d+|(\.probe)?\.log)?")
    for path in sorted(study.folder.iterdir()) if study.folder.is_dir() else ():
        if not known.fullmatch(path.name):
            raise UserError(f"--out {study.folder} holds {path.name}, which is not of this study; give another --out")


def written(study: Study, results: Sequence[Result]) -> str:
    """Fit all measures; write scale.json with the fits, scale.png and scale.md, and return its text."""
    names = ("budget", "parameters", "tokens")
    budgets, sizes, tokens = (np.array([getattr(run, name) for run in study.runs], float) for name in names)
    losses = [one.val_loss for one in results]
    measures = [
        Measure(
            "Loss",
            "validation loss, nats per pixel",
            losses,
            fit_study(budgets, sizes, tokens, np.array(losses)),
            ".4f",
        )
    ]
    if study.probe:
        shares = [float(one.test_accuracy or 0) for one in results]
        fit = fit_study(budgets, sizes, tokens, np.array(shares), maximise=True)
        measures.append(Measure("Accuracy", "test accuracy of the best layer", shares, fit, ".3f"))
    fits = {measure.name.lower(): asdict(measure.fit) for measure in measures}
    text = page(study.config, study.runs, measures, "scale.png")
    paths = (study.folder / name for name in (RECORD, "scale.md", "scale.png"))
    with ExitStack() as stack:  # all three, or none
        record, plain, picture = (stack.enter_context(atomic_path(path)) for path in paths)
        draw(picture, study.runs, measures)
        plain.write_text(text, encoding="utf-8")
        record.write_text(json.dumps({**content(study, results), "fits": fits}, indent=2) + "\n", encoding="utf-8")
    return text
