"""What `igpt tune` decides, as pure functions: which rate comes next, which is chosen, and the configs it writes."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from igpt.system import UserError

GUARD = "igpt.callbacks.LossGuard"
RATE = "model.init_args.learning_rate"


@dataclass(frozen=True)
class RateResult:
    """How a finished run of one learning rate ended.

    `val_loss` is the last validation loss in nats per pixel, None for a failed run; `failed` says why; `val_step` and
    `steps` are the optimizer steps at that validation and in all.
    """

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


def starts_to_rise(losses: Sequence[float]) -> bool:
    """Whether the last loss is above the one before; two failed runs in a row (infinite) are no rise."""
    return len(losses) > 1 and losses[-1] > losses[-2]


def tried(rates: Sequence[float], results: Mapping[float, RateResult]) -> list[RateResult]:
    """The results that count: in the order of `rates`, up to the first rate without one or the first rise."""
    counted: list[RateResult] = []
    for rate in rates:
        if rate not in results or starts_to_rise([result.loss for result in counted]):
            break
        counted.append(results[rate])
    return counted


def next_rate(rates: Sequence[float], results: Mapping[float, RateResult]) -> float | None:
    """The rate to try now; None once the loss starts to rise or all have been tried (paper, section 3.4)."""
    counted = tried(rates, results)
    if starts_to_rise([result.loss for result in counted]) or len(counted) == len(rates):
        return None
    return rates[len(counted)]


def choose(results: Sequence[RateResult]) -> RateResult | None:
    """The result with the lowest validation loss, on a tie the earlier one; None if every run failed."""
    best = min(results, key=lambda result: result.loss, default=None)
    return best if best is not None and math.isfinite(best.loss) else None


def parse_rates(text: str) -> list[float]:
    """Turn "0.01,0.003" into numbers.

    Raises:
        UserError: not positive numbers, or one twice.
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--rates {text!r} are not numbers; write them as 0.01,0.003,0.001") from error
    if not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--rates {text}: learning rates must be positive")
    if len(set(rates)) < len(rates):
        raise UserError(f"--rates {text} names a rate twice; name each once")
    return rates


class ConfigLoader(yaml.SafeLoader):
    """YAML as the parser of `igpt fit` reads it: 1e-3 is a number, not a word."""


ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*(?:[eE][-+]?\d+)?)$"),
    list("-+0123456789."),
)


def read_settings(text: str, overrides: Sequence[str], name: str) -> dict[str, Any]:
    """A config's text with `KEY=VALUE` overrides as nested plain data.

    Raises:
        UserError: no YAML mapping with a model, an override of another form, or a run to go on from.
    """
    try:
        settings = yaml.load(text, ConfigLoader)
    except yaml.YAMLError as error:
        raise UserError(f"--config {name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise UserError(f"--config {name} describes no model; give a config of igpt fit, such as one from configs/")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"--overrides {override!r} is not of the form KEY=VALUE, such as trainer.max_steps=2000")
        put(settings, key, yaml.load(value, ConfigLoader))
    if settings.get("ckpt_path"):
        raise UserError(
            f"--config {name} has a ckpt_path; a resumed optimizer keeps its own rate, so tune without ckpt_path"
        )
    return settings


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested data, in place.

    Raises:
        UserError: the key goes through something that is no mapping.
    """
    *folders, last = key.split(".")
    place = settings
    for folder in folders:
        inner = place.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise UserError(f"{key}: {folder} is not a mapping in this config; name another key")
        place = inner
    place[last] = value


def with_rate(settings: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The settings with another learning rate."""
    changed = deepcopy(dict(settings))
    put(changed, RATE, rate)
    return changed


def run_settings(settings: Mapping[str, Any], rate: float, folder: str, name: str) -> dict[str, Any]:
    """The config of one rate's run: in `folder/name`, with a LossGuard that writes `folder/name/result.json`.

    A LossGuard that the config already has keeps its own limits.
    """
    changed = with_rate(settings, rate)
    changed["name"], changed["runs_dir"] = name, folder
    callbacks = (changed.get("trainer") or {}).get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    entries = [entry if isinstance(entry, dict) else {"class_path": entry} for entry in callbacks]
    guards = [entry for entry in entries if str(entry.get("class_path")).rpartition(".")[2] == "LossGuard"]
    if not guards:
        guards = [{"class_path": GUARD}]
        entries += guards
    guards[0]["init_args"] = {**(guards[0].get("init_args") or {}), "out": f"{folder}/{name}/result.json"}
    put(changed, "trainer.callbacks", entries)
    return changed


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings' content; comments, order of keys and the learning rate, which is tried, do not count."""
    content = json.dumps(with_rate(settings, 0.0), sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ, but for the learning rate."""
    flat_old, flat_new = flat(with_rate(old, 0.0)), flat(with_rate(new, 0.0))
    missing = object()
    return sorted(
        key for key in flat_old.keys() | flat_new.keys() if flat_old.get(key, missing) != flat_new.get(key, missing)
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested data as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value})
    return found


def config_text(original: str, settings: Mapping[str, Any], rate: float) -> str:
    """The config with the chosen rate: the original's text where that says it, else its header and all settings.

    Args:
        original: text of the config.
        settings: its content, with overrides.
    """
    wanted = with_rate(settings, rate)
    edited, count = re.subn(r"(?m)^([^#\n]*\blearning_rate:[ \t]*)[^\s,}#]+", rf"\g<1>{rate!r}", original)
    if count == 1 and yaml.load(edited, ConfigLoader) == wanted:
        return edited
    header = "".join(line for line in original.splitlines(keepends=True)[:8] if line.startswith("#"))
    return header + yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def table(rates: Sequence[float], results: Sequence[RateResult]) -> str:
    """What `igpt tune` prints; the chosen rate is marked."""
    best = choose(results)
    lines = ["  learning rate   val loss   seconds"]
    for rate, result in zip(rates, results, strict=False):
        shown = f"{result.loss:8.4f}" if math.isfinite(result.loss) else "  failed"
        note = f"  {result.failed}" if result.failed else "  <- chosen" if result is best else ""
        lines.append(f"  {rate:>13g}   {shown}   {result.seconds:7.1f}{note}")
    lines += [f"  {rate:>13g}        -   not tried: the loss had started to rise" for rate in rates[len(results) :]]
    return "\n".join(lines)
