"""`igpt scale`: several sizes at each of several budgets of compute, and the laws by which the best size grows."""

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Literal

from igpt.commands.after.scale_runs import Engine, check_folder, train, written
from igpt.commands.after.scale_study import Samples, Study, studied
from igpt.commands.tune import working_in
from igpt.scaling import Speed, measured_speed, plan_table
from igpt.system import UserError, compute_of
from igpt.tokenization import check_engine, run_here, run_on_dask


def scale(
    config: str,
    budgets: int = 4,
    sizes: int = 5,
    smallest: float | None = None,
    largest: float | None = None,
    ratios: list[float] | None = None,
    rate: Literal["fixed", "width"] = "fixed",
    overrides: list[str] | None = None,
    out: str | None = None,
    probe: bool = True,
    source: str = "pixels",
    weights: str | None = None,
    layer: str | None = None,
    num: int | None = None,
    workers: int = 1,
    engine: Literal["local", "dask"] = "local",
    scheduler: str | None = None,
    dry_run: bool = False,
    commands: bool = False,
    speed: float | None = None,
) -> None:
    """Train several sizes at each of several budgets of compute, and fit how the best size grows (IsoFLOP).

    Every run is a whole `igpt fit` of the config with another network, for as many steps as its budget allows, with the
    schedule ending there; then `igpt probe` and `igpt evaluate` of it. scale.json has all results after every run;
    scale.md and scale.png have the fits. Finished runs are not repeated, and one that was cut off goes on from its last
    checkpoint.

    Args:
        config: config of `igpt fit`, AR or BERT; head width, depth to width, batch and all else are as in it.
        budgets: of compute, from smallest to largest, each the same multiple of the one before.
        sizes: networks at each budget, at least 4, since a parabola goes through any 3.
        smallest: budget in operations (FLOPs), such as 1e11; if left out, a quarter of the next one each.
        largest: budget; if left out, what the config itself takes, or four times the one before each.
        ratios: fewest and most tokens a parameter, between which the sizes of each budget lie; 5 500 if left out.
        rate: learning rate of all sizes: that of the config (fixed), or falling as 1/width from it (width).
        overrides: settings to change in the config first, such as '[data.init_args.batch_size=32]'.
        out: folder to write to; runs/scale_NAME if left out. It belongs to one study.
        probe: whether to probe every run; false for data without labels.
        source: whose features samples and training images are compared in (`igpt evaluate --source`): best a run of an
            encoder trained on the same data; raw pixels if left out. May be given, or changed, once all runs are done.
        weights: of the source, a state dict's file.
        layer: of the source, by name or number; the last if left out.
        num: samples of each run to judge; as many as there are test images, at most 2,000, if left out; 0 for none.
        workers: runs at once on this machine, which share its cores out evenly.
        engine: local, or dask: the workers of a Dask cluster, which must see all files by the same paths.
        scheduler: of Dask, such as tcp://host:8786.
        dry_run: print the plan with steps, FLOPs and hours, and write nothing.
        commands: print the shell commands of all runs for a scheduler, and the one that gathers them; write nothing.
        speed: for the hours of --dry-run, operations a second; if left out, a few steps are timed on this machine.

    Raises:
        UserError: a number out of range, a config of another kind, or an `out` that holds something else.
    """
    if budgets < 2 or sizes < 4:
        raise UserError(f"--budgets {budgets} --sizes {sizes}: give at least 2 budgets and 4 sizes")
    if speed is not None and not 0 < speed < float("inf"):
        raise UserError(f"--speed {speed} must be above 0; give operations a second, such as 1e12")
    check_engine(engine, scheduler)
    if workers < 1:
        raise UserError(f"--workers {workers} must be at least 1")
    samples = Samples(source, weights, layer, num)
    study = studied(config, out, overrides or [], probe, samples).planned(
        budgets, sizes, (smallest, largest), ratios, rate
    )
    check_folder(study)
    if dry_run:
        print(foretold(study, speed), end="")
    elif commands:
        for run in study.runs:
            print(" && ".join(shlex.join(["igpt", *words]) for words in study.words(run)))
        print(shlex.join(["igpt", *gathering(study, (budgets, sizes), ratios, rate)]))
    else:
        samples.check()
        do: Engine = partial(run_on_dask, scheduler=scheduler) if scheduler else partial(run_here, workers=workers)
        with working_in(study.folder):
            results = train(study, max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None, do)
            print(written(study, results), end="")
        print(f"wrote {study.folder / 'scale.md'}, scale.png, scale.json")


def foretold(study: Study, speed: float | None) -> str:
    """The plan with hours, as text."""
    if speed is not None:
        known, how = Speed((1.0, 1.0), (speed, speed)), f"{speed:.3g} operations a second, as given"
    else:
        device = compute_of("auto", "auto").device
        known = measured_speed(study.runs, study.base, study.batch, device, study.causal)
        how = f"{known.rates[0]:.3g} to {known.rates[1]:.3g} operations a second, timed on {device} in float32"
    seconds = [known.seconds(run) for run in study.runs]
    table, work = plan_table(study.runs, seconds), sum(run.operations for run in study.runs)
    return (
        f"{table}{len(study.runs)} runs, {work:.3g} FLOPs, {sum(seconds) / 3600:.2f} hours one after the other: {how}, "
        "and 10 seconds to start each; validation, probes and samples come on top\n"
    )


def gathering(study: Study, counts: tuple[int, int], ratios: list[float] | None, rate: str) -> list[str]:
    """The words of the command that makes the page once all runs are done; it trains what is missing."""
    budgets = [run.budget for run in study.runs]
    words = ["scale", "--config", study.config, "--budgets", str(counts[0]), "--sizes", str(counts[1])]
    words += ["--smallest", repr(min(budgets)), "--largest", repr(max(budgets)), "--rate", rate]
    words += ["--ratios", f"[{', '.join(map(repr, ratios))}]"] if ratios else []
    words += ["--overrides", f"[{', '.join(study.overrides)}]"] if study.overrides else []
    words += study.samples.words()
    return [*words, "--out", str(Path(study.folder)), *([] if study.probe else ["--probe", "false"])]
