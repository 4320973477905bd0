"""`igpt tune`: the learning rates in turn, each a run of its own, until the validation loss starts to rise."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from igpt.commands import tuning
from igpt.commands.tuning import RateResult
from igpt.parsing import check_config, config_name
from igpt.system import LOST, UserError, atomic_path


def tune(
    config: str, rates: str = "0.01,0.003,0.001,0.0003", out: str | None = None, overrides: list[str] | None = None
) -> None:
    """Try learning rates in turn until the final validation loss starts to rise (paper, section 3.4).

    Every rate is a whole `igpt fit` of the config; one that meets NaN or a lasting spike is stopped and counts as
    failed. Writes, into the folder `out`: NAME.yaml, the config with the rate of the lowest loss, ready for
    `igpt fit --config`; tune.json, all results; and a run's folder lr_RATE, its config and its log for each rate.
    Killed and started again, it goes on: finished rates are not run again, one that was cut off is run from its start.

    Args:
        config: config of `igpt fit`.
        rates: learning rates in the order to try them.
        out: folder to write to; runs/NAME_tune if left out. It belongs to one config: with a changed one, tune refuses
            it and names the change. More or other rates may be given.
        overrides: settings to change in the config first, such as '[trainer.max_steps=2000, samples.num=0]'; the
            written config has them too.

    Raises:
        UserError: no such config, a wrong rate or override, results of another config in `out`, or every rate failed.
    """
    wanted = tuning.parse_rates(rates)
    source = Path(config)
    text = read(source)
    settings = tuning.read_settings(text, overrides or [], config)
    folder = Path(out) if out else Path(settings.get("runs_dir", "runs")) / f"{config_name(source)}_tune"
    record = folder / "tune.json"
    content = start_or_continue(record, source, settings)
    content["rates"] = wanted
    with made_folder(folder), locked(folder):
        results = {result["rate"]: RateResult(**result) for result in content["results"]}
        while (rate := tuning.next_rate(wanted, results)) is not None:
            print(f"learning rate {rate:g}: training, see {log_file(folder, rate)}", flush=True)
            results[rate] = run_rate(folder, settings, rate)
            content["results"] = [asdict(result) for result in results.values()]
            write(record, content)
        finish(folder / source.name, text, settings, tuning.tried(wanted, results), content)


def read(source: Path) -> str:
    """The config's text.

    Raises:
        UserError: it cannot be read.
    """
    try:
        check_config(source)
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"--config {source} cannot be read: {reason}; give a config of igpt fit") from error


def start_or_continue(record: Path, source: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The content of an earlier tune.json, or that of a new one.

    Raises:
        UserError: the file belongs to another config, or is none of igpt tune.
    """
    mark = tuning.fingerprint(settings)
    new: dict[str, Any] = {
        "config": str(source),
        "sha256": mark,
        "settings": settings,
        "rates": [],
        "results": [],
        "chosen": None,
    }
    start: dict[str, Any] = json.loads(json.dumps(new, default=str))
    if not record.exists():
        return start
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        same, old = content["sha256"] == mark, content["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} was not written by igpt tune; give another --out or move it away") from error
    if not same:
        changed = ", ".join(tuning.differences(old, start["settings"]))
        raise UserError(
            f"--out {record.parent} holds results of another config ({changed} differ); give another --out, or move "
            "that folder away to start anew"
        )
    return content


def run_rate(folder: Path, settings: dict[str, Any], rate: float) -> RateResult:
    """Train with one rate in a process of its own.

    Raises:
        UserError: `igpt fit` refused the config, in its own words, or no validation took place.
        RuntimeError: the run broke off for another reason.
    """
    name = run_name(rate)
    config, report, log = folder / f"{name}.yaml", folder / name / "result.json", log_file(folder, rate)
    with suppress(OSError):
        report.unlink()  # of a run that ended but was not recorded
    with atomic_path(config) as path:
        chosen = tuning.run_settings(settings, rate, str(folder), name)
        path.write_text(yaml.safe_dump(chosen, sort_keys=False), encoding="utf-8")
    started = time.perf_counter()
    code = fit(config, log)
    seconds = round(time.perf_counter() - started, 1)
    if code == 2:
        words = refusal(log)
        for file in (config, log):
            file.unlink()
        raise UserError(words)
    if code not in (0, LOST) or not report.exists():
        raise RuntimeError(f"the run with learning rate {rate:g} broke off with exit code {code}; see {log}")
    found = json.loads(report.read_text(encoding="utf-8"))
    if found["val_loss"] is None and not found["stopped"]:
        raise UserError(
            f"the run with learning rate {rate:g} never validated; set trainer.val_check_interval to at most max_steps"
        )
    val_loss = None if found["stopped"] else found["val_loss"]
    return RateResult(rate, val_loss, found["val_step"], found["steps"], seconds, found["stopped"])


def fit(config: Path, log: Path) -> int:
    """Run `igpt fit --config CONFIG` as a process that ends with this one; its output goes to `log`."""
    command = [sys.executable, "-m", "igpt", "--attached", "fit", "--config", str(config)]
    environment = {**os.environ, "PYTHONUTF8": "1"}  # so that its words are read here as they were written
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        return process.wait()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        UserError: another tune is at work in the folder.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"--out {folder}: another igpt tune is at work there; let it end, or give another --out"
        ) from error


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make the folder; if an error leaves nothing in it, it is removed again, and the ones above it made here."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be made: {error.strerror}; choose another --out") from error
    try:
        yield
    except UserError:
        if made and set(os.listdir(folder)) <= {".lock"}:
            (folder / ".lock").unlink(missing_ok=True)
            for place in made:
                place.rmdir()
        raise


def finish(
    target: Path, text: str, settings: dict[str, Any], results: Sequence[RateResult], content: dict[str, Any]
) -> None:
    """Print the table and write the chosen config and the last state of tune.json.

    Raises:
        UserError: every rate failed.
    """
    rates = content["rates"]
    print(tuning.table(rates, results))
    best = tuning.choose(results)
    content["chosen"] = best.rate if best else None
    write(target.with_name("tune.json"), content)
    if best is None:
        raise UserError(f"--rates {','.join(f'{rate:g}' for rate in rates)}: every run failed; give smaller rates")
    if results[-1] is best:
        print("the last rate is the best: the loss has not started to rise; add smaller ones with --rates")
    shown = ", ".join(f"{r.rate:g}: {'failed' if r.failed else f'{r.loss:.4f}'}" for r in results)
    head = f"# learning_rate chosen by igpt tune; val loss at step {best.val_step} by rate: {shown}\n"
    with atomic_path(target) as path:
        path.write_text(head + tuning.config_text(text, settings, best.rate), encoding="utf-8")
    print(f"chose learning rate {best.rate:g}\nwrote {target}, tune.json; train with: igpt fit --config {target}")


def write(record: Path, content: dict[str, Any]) -> None:
    """Write tune.json, whole or not at all."""
    with atomic_path(record) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def refusal(log: Path) -> str:
    """The line with which `igpt fit` refused, without its prefix."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.removeprefix("igpt fit: ") for line in text.splitlines() if line.startswith("igpt fit: ")]
    return "\n".join(lines) or f"igpt fit refused the config; see {log}"


def run_name(rate: float) -> str:
    """Name of a rate's run folder."""
    return f"lr_{rate:g}"


def log_file(folder: Path, rate: float) -> Path:
    """Where the output of a rate's run goes."""
    return folder / f"{run_name(rate)}.log"
