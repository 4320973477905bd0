"""`igpt tune`: one training run per learning rate, until the validation loss starts to rise (paper, section 3.4)."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import yaml

from igpt.parsing import check_config, config_name, read_yaml
from igpt.system import LOST, UserError, UserErrors, atomic_path, find_config, only_writer


@dataclass(frozen=True)
class RateResult:
    """How a rate's run ended: its last validation loss (nats per pixel) and that step, or why it `failed`."""

    rate: float
    val_loss: float | None
    val_step: int | None
    steps: int
    seconds: float
    failed: str | None

    @property
    def loss(self) -> float:
        """The validation loss to compare by: infinite for a failed run."""
        return math.inf if self.val_loss is None or self.failed else self.val_loss


def tune(
    config: str, rates: str = "0.01,0.003,0.001,0.0003", out: str | None = None, overrides: list[str] | None = None
) -> None:
    """Try learning rates in turn until the final validation loss starts to rise (paper, section 3.4).

    Every rate is a whole `igpt fit` of the config; one that meets NaN or a lasting spike is stopped and counts as
    failed. The folder gets NAME.yaml, the config with the rate of the lowest loss; tune.json, all results; and of each
    rate its run lr_RATE, its config and its log. Killed and started again, tune goes on with the rate that was cut off.

    Args:
        config: config of `igpt fit`.
        rates: learning rates in the order to try them.
        out: folder to write to; runs/NAME_tune if left out. It belongs to one config; more or other rates may be given.
        overrides: settings to change in the config first, such as '[trainer.max_steps=2000, samples.num=0]'.
    """
    wanted, source = parse_rates(rates), Path(find_config(config))
    check_config(source)
    text = source.read_text(encoding="utf-8")
    settings = read_settings(text, overrides or [], config)
    folder = Path(out) if out else Path(settings.get("runs_dir", "runs")) / f"{config_name(source)}_tune"
    record, target = folder / "tune.json", folder / source.name
    with working_in(folder):
        known = earlier(record, settings)

        def note(chosen: float | None = None) -> None:
            results = [asdict(result) for result in known.values()]
            content = {"config": config, "settings": settings, "rates": wanted, "results": results, "chosen": chosen}
            with atomic_path(record) as path:
                path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")

        def result_of(rate: float) -> RateResult:
            if rate not in known:
                print(f"learning rate {rate:g}: training, see {folder / f'lr_{rate:g}.log'}", flush=True)
                known[rate] = run_rate(folder, settings, rate)
                note()
            return known[rate]

        best = choose(results := tried(wanted, result_of))
        print(table(wanted, results))
        note(best.rate if best else None)
        if best is None:
            raise UserError(f"--rates {rates}: every run failed; give smaller rates")
        if results[-1] is best:
            print("the last rate is the best: the loss has not started to rise; add smaller ones with --rates")
        shown = ", ".join(f"{one.rate:g}: {'failed' if one.failed else f'{one.loss:.4f}'}" for one in results)
        head = f"# learning_rate chosen by igpt tune; val loss at step {best.val_step} by rate: {shown}\n"
        with atomic_path(target) as path:
            path.write_text(head + config_text(text, settings, best.rate), encoding="utf-8")
    print(f"chose learning rate {best.rate:g}\nwrote {target}, tune.json; train with: igpt fit --config {target}")


def tried(rates: Sequence[float], result_of: Callable[[float], RateResult]) -> list[RateResult]:
    """The results of one rate after the other, until a loss is above that of the rate before."""
    results: list[RateResult] = []
    for rate in rates:
        if len(results) < 2 or results[-1].loss <= results[-2].loss:  # two failed runs in a row are no rise
            results.append(result_of(rate))
    return results


def choose(results: Sequence[RateResult]) -> RateResult | None:
    """The result with the lowest validation loss, on a tie the earlier one; None if every run failed."""
    best = min(results, key=lambda result: result.loss, default=None)
    return best if best is not None and math.isfinite(best.loss) else None


def parse_rates(text: str) -> list[float]:
    """Turn "0.01,0.003" into numbers."""
    with suppress(ValueError):
        rates = [float(part) for part in text.split(",")]
        if len(set(rates)) == len(rates) and all(0 < rate < math.inf for rate in rates):
            return rates
    raise UserError(f"--rates {text!r}: give positive numbers, none of them twice, such as 0.01,0.003,0.001")


def read_settings(text: str, overrides: Sequence[str], name: str) -> dict[str, Any]:
    """A config's text with `KEY=VALUE` overrides as nested plain data; a UserError if no run can begin from it."""
    settings = from_yaml(text, f"--config {name}")
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise UserError(f"--config {name} describes no model; give a config of igpt fit, such as one from configs/")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"--overrides {override!r} is not of the form KEY=VALUE, such as trainer.max_steps=2000")
        put(settings, key, from_yaml(value, f"--overrides {key}"))
    if settings.get("ckpt_path"):
        raise UserError(f"--config {name} has a ckpt_path; a resumed optimizer keeps its own rate, so leave it out")
    return settings


def from_yaml(text: str, where: str) -> Any:
    """YAML as the parser of `igpt fit` reads it, to which 1e-3 is a number."""
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where} is no YAML: {' '.join(str(error).split())}") from error


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested data, in place; a UserError if it goes through what is no mapping."""
    *folders, last = key.split(".")
    for folder in folders:
        settings = settings.setdefault(folder, {})
        if not isinstance(settings, dict):
            raise UserError(f"{key}: {folder} is not a mapping in this config; name another key")
    settings[last] = value


def with_rate(settings: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The settings with another learning rate."""
    put(changed := deepcopy(dict(settings)), "model.init_args.learning_rate", rate)
    return changed


def run_settings(settings: Mapping[str, Any], rate: float, folder: str, name: str) -> dict[str, Any]:
    """The config of one rate's run: in `folder/name`, with one LossGuard, that of the config if it has one."""
    changed = {**with_rate(settings, rate), "name": name, "runs_dir": folder}
    given = (changed.get("trainer") or {}).get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    entries = [one if isinstance(one, dict) else {"class_path": one} for one in given]
    guards = [entry for entry in entries if str(entry.get("class_path")).rpartition(".")[2] == "LossGuard"]
    guard: dict[str, Any] = guards[0] if guards else {"class_path": "igpt.callbacks.LossGuard"}
    guard["init_args"] = {**(guard.get("init_args") or {}), "out": f"{folder}/{name}/result.json"}
    put(changed, "trainer.callbacks", entries if guards else [*entries, guard])
    return changed


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Dotted keys whose values differ, in nested data."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [key]
    inner = [(name, f"{key}.{name}" if key else name) for name in sorted({*old, *new})]
    return [found for name, full in inner for found in differences(old.get(name, {}), new.get(name, {}), full)]


def config_text(original: str, settings: Mapping[str, Any], rate: float) -> str:
    """The config with the chosen rate: the original's text where that says it, else its header and all settings."""
    wanted = with_rate(settings, rate)
    edited, count = re.subn(r"(?m)^([^#\n]*\blearning_rate:[ \t]*)[^\s,}#]+", rf"\g<1>{rate!r}", original)
    if count == 1 and from_yaml(edited, "--config") == wanted:
        return edited
    header = "".join(line for line in original.splitlines(keepends=True)[:8] if line.startswith("#"))
    return header + yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def table(rates: Sequence[float], results: Sequence[RateResult]) -> str:
    """What is printed of all rates; the chosen one is marked."""
    best = choose(results)
    lines = ["  learning rate   val loss   seconds"]
    for rate, result in zip(rates, results, strict=False):
        shown = f"{result.loss:8.4f}" if math.isfinite(result.loss) else "  failed"
        note = f"  {result.failed}" if result.failed else "  <- chosen" if result is best else ""
        lines.append(f"  {rate:>13g}   {shown}   {result.seconds:7.1f}{note}")
    lines += [f"  {rate:>13g}        -   not tried: the loss had started to rise" for rate in rates[len(results) :]]
    return "\n".join(lines)


def earlier(record: Path, settings: dict[str, Any]) -> dict[float, RateResult]:
    """The results in tune.json, if it is there; a UserError if it is of another config, or none of igpt tune."""
    if not record.exists():
        return {}
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        old, known = with_rate(content["settings"], 0.0), [RateResult(**result) for result in content["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} was not written by igpt tune; give another --out or move it away") from error
    off = ", ".join(differences(old, json.loads(json.dumps(with_rate(settings, 0.0), default=str))))
    if off:
        raise UserError(f"--out {record.parent} holds results of another config ({off} differ); give another --out")
    return {result.rate: result for result in known}


def run_rate(folder: Path, settings: dict[str, Any], rate: float) -> RateResult:
    """Train with one rate in a process of its own; a UserError if `igpt fit` refused the config, in its words."""
    name = f"lr_{rate:g}"
    config, report, log = folder / f"{name}.yaml", folder / name / "result.json", folder / f"{name}.log"
    report.unlink(missing_ok=True)  # of a run that ended but was not recorded
    with atomic_path(config) as path:
        path.write_text(yaml.safe_dump(run_settings(settings, rate, str(folder), name), sort_keys=False), "utf-8")
    started = time.perf_counter()
    code = fit(config, log)
    seconds = round(time.perf_counter() - started, 1)
    if code == 2:
        words = re.findall(r"(?m)^igpt fit: (.*)$", log.read_text(encoding="utf-8", errors="replace"))
        config.unlink()
        log.unlink()
        raise UserErrors([UserError(line) for line in words])
    if code not in (0, LOST) or not report.exists():
        raise RuntimeError(f"the run with learning rate {rate:g} broke off with exit code {code}; see {log}")
    found = json.loads(report.read_text(encoding="utf-8"))
    stopped, val_loss = found["stopped"], found["val_loss"]
    if val_loss is None and not stopped:
        raise UserError("--config: no run validates; set trainer.val_check_interval to at most max_steps")
    return RateResult(rate, None if stopped else val_loss, found["val_step"], found["steps"], seconds, stopped)


def fit(config: Path, log: Path) -> int:
    """Run `igpt fit --config CONFIG` as a process that ends with this one; its output goes to `log`."""
    return attached(["fit", "--config", str(config)], log)


def attached(words: list[str], log: Path, place: Path | None = None, threads: int | None = None) -> int:
    """Run `igpt WORDS` as a process that ends with this one; its output goes to `log`. Returns its exit code.

    It starts in the folder `place`, or this one's, with so many threads, or as many as the machine gives it.
    """
    command = [sys.executable, "-m", "igpt", "--attached", *words]
    environment = {**os.environ, "PYTHONUTF8": "1"}  # so that its words are read here as they were written
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    streams: dict[str, Any] = {"stdin": PIPE, "stderr": STDOUT, "cwd": place, "env": environment}
    with log.open("wb") as file, Popen(command, stdout=file, **streams) as process:
        return process.wait()


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a folder for writing; one that was made here goes again where a refusal leaves nothing in it."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with only_writer(folder, "give another --out"):
            folder.mkdir(parents=True, exist_ok=True)
            yield
    except UserError:
        with suppress(OSError):  # the first that holds anything ends it
            for place in made:
                place.rmdir()
        raise
