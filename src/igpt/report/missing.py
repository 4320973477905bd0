"""What a run's folder does not hold yet, each with the command that makes it."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from igpt.report.content import Table, columns
from igpt.report.pairing import tuned_accuracy, votes
from igpt.report.records import Run


def missing(runs: list[Run]) -> Table | None:
    """One row for each thing that is missing; None where nothing is."""
    rows = [[run.name, what, command] for run in runs for what, command in lacking(run)]
    return Table(columns("Run", "Missing", "$Made with"), rows) if rows else None


def lacking(run: Run) -> Iterator[tuple[str, str]]:
    """What and with which command, for one run."""
    file = Path(run.folder) / run.checkpoint
    data = data_option(run)
    if run.steps != 0 and not run.curve("val/loss"):
        yield "events of training", command("fit", "--config", "configs/NAME.yaml")
    if run.objective == "Joint":
        yield from lacking_tuned(run, file)
        return
    if run.tested("loss") is None:
        yield "test loss", test(run, file)
    elif run.objective == "AR" and not any(score.likelihood for score in run.own_scores):
        yield "exact likelihood of the test images", test(run, file)
    if run.probe is None:
        yield "probe.json", command("probe", "--ckpt", file, *data)
    for step in [step for step in run.steps_saved if run.probe and step not in {p.step for p in run.probes}]:
        yield f"probe at step {step:,}", command("probe", "--ckpt", file.with_name(f"step={step:07d}.ckpt"), *data)
    if run.probe and not run.probe.low_data:
        yield "probes with few labels", command("probe", "--ckpt", file, *data, "--labels_per_class", 4, 25)
    for name, how in (("samples", ("--num", 64)), ("completions", (*data, "--rows", 8, "--num", 6))):
        if name not in run.pictures and name not in run.events.pictures:
            yield name, command("sample", "--ckpt", file, *how, "--out", Path(run.folder) / f"{name}.png")


def lacking_tuned(run: Run, file: Path) -> Iterator[tuple[str, str]]:
    """The same for a fine-tuned run."""
    if run.origin is None:
        yield "where it began: no config.yaml, or a resumed run's", command("fit", "--config", "configs/NAME.yaml")
    if tuned_accuracy(run) is None:
        yield "test accuracy", test(run, file)
    elif run.core == "BERT" and votes(run) is None:
        one = test(run, file, "--model.init_args.eval_masks", 1)
        yield "test under 5 masks and under 1, in scores.json", f"{test(run, file)}; {one}"


def test(run: Run, file: Path, *more: object) -> str:
    """`igpt test` with the run's own config, which has to be told the run's name and place."""
    folder = Path(run.folder)
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    place = ("--name", named.name, "--runs_dir", named.parent)
    return command("test", "--config", folder / run.config, *data_option(run), *place, "--ckpt_path", file, *more)


def data_option(run: Run) -> tuple[str, ...]:
    """What an imported run has to be told in every command that needs images."""
    return () if run.config == "config.yaml" else ("--data", "DATA")


def command(*words: object) -> str:
    """A command line that a shell takes as it stands."""
    return shlex.join(["igpt", *map(str, words)])
