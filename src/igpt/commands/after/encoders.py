"""The encoder that `igpt evaluate` takes where no --source is given, and what a Frechet distance in it is called."""

import inspect
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from igpt.checkpoints import find_checkpoint
from igpt.data import ImageDataModule
from igpt.families import LoadedSource, open_checkpoint
from igpt.system import UserError, sha256_of

ENCODERS = ("igpt.families.SimCLR", "igpt.families.MoCo")  # families that learn features and draw nothing
PLAIN = ("batch_size", "num_workers", "device_gib")  # options that leave the images as they are
INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # the weights that define FID
INCEPTION_WIDTH = 2048


def found_encoder(data: ImageDataModule, folders: Sequence[Path]) -> str:
    """The run of an encoder that was trained on these data, the first by name.

    Args:
        data: prepared.
        folders: of runs, looked through in this order.

    Raises:
        UserError: there is none; the message is the command that trains one.
    """
    wanted = identity(data)
    for folder in folders:
        for config in sorted(folder.glob("*/config.yaml")):
            if of_an_encoder(config) and trained_on(config.parent) == wanted:
                return str(config.parent)
    raise UserError(f"--source is missing, and no encoder of these data in {folders[0]}; train one: {command(data)}")


def identity(data: ImageDataModule) -> dict[str, Any]:
    """What tells data from others, wherever they lie."""
    return {name: value for name, value in data.identity().items() if name != "root"}


def of_an_encoder(config: Path) -> bool:
    """Whether a run's config is of a family that learns features alone."""
    try:
        model = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
        return model["class_path"] in ENCODERS
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return False


def trained_on(run: Path) -> dict[str, Any] | None:
    """The identity of a run's data; None where the run has no checkpoint, or its data are not there."""
    try:
        loaded = open_checkpoint(find_checkpoint(str(run)))
        if not isinstance(loaded, LoadedSource):
            return None
        data = loaded.data()
        data.prepare_data()
        return identity(data)
    except (UserError, OSError):
        return None


def command(data: ImageDataModule) -> str:
    """The command that trains an encoder on data."""
    spec = data.spec()
    defaults = {name: one.default for name, one in inspect.signature(type(data).__init__).parameters.items()}
    words = ["igpt", "fit", "--config", "families/simclr_digits", "--name", f"simclr_{type(data).__name__}"]
    words += ["--data", spec["class_path"], "--model.resolution", text_of(spec["init_args"].get("resolution", 8))]
    for name, value in spec["init_args"].items():
        if name not in PLAIN and value != plain_of(defaults.get(name)):
            words += [f"--data.{name}", text_of(value)]
    return shlex.join(words)


def plain_of(value: Any) -> Any:
    """A default as a spec has it."""
    return vars(value) if hasattr(value, "__dict__") else value


def text_of(value: Any) -> str:
    """A value as an option takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def distance_name(source: str, layer: str, weights: str | None, width: int) -> str:
    """FID where the weights are those that define it, and the features as wide; else where the distance is."""
    known = weights is not None and Path(weights).is_file() and sha256_of(Path(weights)) == INCEPTION
    return "FID" if known and width == INCEPTION_WIDTH else f"Frechet distance in {source}, layer {layer}"
