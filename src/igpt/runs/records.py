"""Records of the commands that were run on a run: commands.txt and scores.json in its folder."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igpt.system import UserError, atomic_path, in_turn, percent

if TYPE_CHECKING:
    from torch import Tensor

MOST_CLASSES = 100  # of a confusion matrix that is kept


def add_command(folder: Path, command: str) -> None:
    """Add one line to commands.txt."""
    path = folder / "commands.txt"
    with in_turn(path):
        earlier = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        with atomic_path(path) as temporary:
            temporary.write_text(f"{earlier}{command}\n", encoding="utf-8")


def read_scores(folder: Path) -> list[Any]:
    """The entries of scores.json, none where there is no file; a UserError if it holds no list."""
    path = folder / "scores.json"
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON; move it away, and a new one is begun") from error
    if not isinstance(entries, list):
        raise UserError(f"{path} does not hold a list of scores; move it away, and a new one is begun")
    return entries


def add_score(folder: Path, entry: dict[str, Any]) -> None:
    """Add an entry to scores.json."""
    with in_turn(folder / "scores.json"):
        entries = [*read_scores(folder), entry]
        with atomic_path(folder / "scores.json") as path:
            path.write_text(json.dumps(entries, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain_part(spec: dict[str, Any]) -> dict[str, Any]:
    """Class path and those arguments of a specification that are a number, a word, true, false or null."""
    arguments = spec["init_args"]
    plain = {name: arguments[name] for name in arguments if not isinstance(arguments[name], (dict, list))}
    return {"class_path": spec["class_path"], **plain}


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics as numbers; null where one is not finite, since JSON has no word for that."""
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def accuracies(metrics: Mapping[str, Any]) -> str:
    """Accuracies of a test or validation in one line, in per cent: those that Lightning prints as shares."""
    found = sorted((name, float(value)) for name, value in metrics.items() if name.endswith("accuracy"))
    return ", ".join(f"{re.sub('[/_]', ' ', name)} {percent(value)}" for name, value in found)


def confusion(counts: "Tensor", names: Sequence[object]) -> dict[str, Any] | None:
    """Confusion matrix `(K, K)` and class names as plain data; None beyond 100 classes, which nobody could read."""
    return {"classes": list(map(str, names)), "counts": counts.tolist()} if len(counts) <= MOST_CLASSES else None


def headline(config: Any) -> dict[str, Any]:
    """What tells one training from another, as plain numbers and words, for a table of many."""
    model = config.model.init_args
    shape = model.get("transformer") or {}
    found = {
        "model": config.model.class_path.rpartition(".")[2],
        "data": config.data.class_path.rpartition(".")[2],
        **{name: model.get(name) for name in ("learning_rate", "weight_decay", "order", "optimizer", "schedule")},
        **{name: shape.get(name) for name in ("n_layers", "d_model", "n_heads", "n_positions", "vocab_size")},
        "batch_size": config.data.init_args.get("batch_size"),
        "max_steps": config.trainer.max_steps,
        "precision": str(config.trainer.precision),
        "seed": config.get("seed_everything"),
    }
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}
