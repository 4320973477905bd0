"""What kind of run a folder holds: from its config, and from the header and tensors of its newest checkpoint."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, LAST, META, read_checkpoint, read_meta, step_checkpoints
from igpt.palette import check_colors
from igpt.report.fields import Check, Fields, is_count, is_integer, is_mapping, is_number, is_text, read_text
from igpt.report.leaving import Say, attempt
from igpt.report.reading import UNKNOWN, data_of
from igpt.report.records import Data, Network
from igpt.system import UserError, same_file

OBJECTIVES = {"Autoregressive": "AR", "BERT": "BERT", "Joint": "Joint"}
IMPORTED = "checkpoints/last.yaml"  # the config that `igpt import` writes beside its checkpoint
NOT_TRAINED = ("palette.colors", "pixel_order")  # tensors of a checkpoint that are no parameters
SHAPE = ("n_layers", "d_model", "n_heads", "n_positions", "vocab_size")
OF_MODELS: dict[str, Check] = {
    "learning_rate": is_number,
    "order": is_text,
    "generative_weight": is_number,
    "evaluation": is_text,
    "eval_masks": is_count,
    "pretrained": is_text,
}
PUT_BACK = "put back the file that igpt fit wrote"


@dataclass(frozen=True)
class Described:
    """What a config or a checkpoint says, all of it looked at.

    Args:
        model: class path and arguments, as plain data; empty where it is not known.
        data: what the run was trained on.
        seed, max_steps, precision, resumed: what a config alone says.
        step, parameters, palette: what a checkpoint alone says.
    """

    model: dict[str, Any]
    data: Data
    seed: int | None = None
    max_steps: int | None = None
    precision: str | None = None
    resumed: bool = False
    step: int | None = None
    parameters: int | None = None
    palette: Tensor | None = None


NOTHING = Described({}, UNKNOWN)


def read_config(path: Path) -> Described | None:
    """What config.yaml says; None where there is none.

    Raises:
        UserError: it is no YAML file with a model and data, or one of the values that a report shows is off.
    """
    if not os.path.lexists(path):
        return None
    text = read_text(path, PUT_BACK)
    try:
        content = yaml.safe_load(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not readable YAML; {PUT_BACK}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in ("model", "data")):
        raise UserError(f"{path} is not the config of a run; {PUT_BACK}")
    config = Fields(content, path, PUT_BACK)
    trainer = config.inside("trainer")
    return Described(
        model=checked_model(config.inside("model")),
        data=data_of(config),
        seed=None if config.content.get("seed_everything") is True else config.may("seed_everything", is_count),
        max_steps=trainer.may("max_steps", is_integer),
        precision=None if (known := trainer.may("precision", is_precision)) is None else str(known),
        resumed=bool(config.content.get("ckpt_path")),
    )


def is_precision(value: Any) -> bool:
    """Whether it is a precision, as Lightning names them."""
    return is_text(value) or is_count(value)


def checked_model(spec: Fields) -> dict[str, Any]:
    """A model's class path and arguments.

    Raises:
        UserError: an argument that a report shows is off.
    """
    spec.may("class_path", is_text)
    given = spec.inside("init_args")
    for name, check in OF_MODELS.items():
        given.may(name, check)
    shape = given.inside("transformer")
    for name in SHAPE:
        shape.may(name, is_count)
    if given.content.get("generative"):
        checked_model(given.inside("generative"))
    return {"class_path": spec.content.get("class_path"), "init_args": given.content}


def read_saved(folder: Path, say: Say) -> Described | None:
    """What the newest checkpoint that can be read says; None where there is none."""
    found = (attempt(partial(read_header, path), say, None) for path in newest_first(folder))
    return next((saved for saved in found if saved), None)


def newest_first(folder: Path) -> Iterator[Path]:
    """last.ckpt, then the files of the steps that it does not link to, the latest first."""
    last = folder / LAST
    if os.path.lexists(last):
        yield last
    yield from (path for path in step_checkpoints(folder).values() if not same_file(path, last))


def read_header(path: Path) -> Described:
    """What one checkpoint says, a file or the folder of a sharded run, whose tensors are not looked at.

    Raises:
        UserError: it is not whole, damaged, or one of the values that a report shows is off.
    """
    content = read_meta(path) if (path / META).is_file() else read_checkpoint(path)
    everything = Fields({"state_dict": {}, **content}, path, "use a file that igpt wrote")
    header = everything.inside(CHECKPOINT_KEY)
    state = {name: value for name, value in everything.need("state_dict", is_mapping).items() if is_tensor(value)}
    return Described(
        model=checked_model(header.inside("model")),
        data=data_of(header),
        step=everything.may("global_step", is_count),
        parameters=sum(value.numel() for name, value in state.items() if not name.endswith(NOT_TRAINED)) or None,
        palette=palette_of(state, path),
    )


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(value, Tensor)


def palette_of(state: dict[str, Tensor], path: Path) -> Tensor | None:
    """The palette's colours, `(k, 3)` in [-1, 1].

    Raises:
        UserError: they are no colours.
    """
    found = next((value for name, value in state.items() if name.endswith("palette.colors")), None)
    return None if found is None else check_colors(found, f"{path}: its palette")


def describe(path: Path, config: Described | None, saved: Described | None, say: Say) -> dict[str, Any]:
    """What kind of run this is, from its checkpoint's header and its config.

    Raises:
        UserError: neither names a model that igpt knows.
    """
    chosen, stored = (config or NOTHING), (saved or NOTHING)
    model = {**arguments(chosen.model), **arguments(stored.model)}
    objective = objective_of(stored.model) or objective_of(chosen.model)
    if objective is None:
        raise UserError(f"run {path}: it is of no class of igpt.modules; give the folder of a run of igpt fit")
    tuned = objective == "Joint"
    held = core_of(stored.model, chosen.model, say) if tuned else {}
    core = objective if not tuned else objective_of(held) or "unknown"
    inner = arguments(held) if tuned else model
    best = os.path.exists(path / "checkpoints" / "best.ckpt")
    return {
        "objective": objective,
        "checkpoint": "checkpoints/best.ckpt" if best and tuned else "checkpoints/last.ckpt",
        "config": IMPORTED if config is None and os.path.exists(path / IMPORTED) else "config.yaml",
        "core": core,
        "data": chosen.data if stored.data == UNKNOWN else stored.data,
        "origin": origin_of(chosen, core) if tuned else None,
        "weight": model.get("generative_weight", 1.0) if tuned else None,
        "network": network_of(inner.get("transformer")),
        "parameters": stored.parameters,
        "palette": stored.palette,
        "seed": chosen.seed,
        "steps": stored.step,
        "max_steps": chosen.max_steps,
        "learning_rate": model.get("learning_rate"),
        "order": inner.get("order") or "raster",
        "precision": chosen.precision,
        "evaluation": evaluation_of(model) if tuned else None,
    }


def arguments(model: dict[str, Any]) -> dict[str, Any]:
    """Of a model's class; empty where the model is not known."""
    given: dict[str, Any] = model.get("init_args") or {}
    return given


def objective_of(spec: dict[str, Any]) -> str | None:
    """AR, BERT or Joint, by the class that a specification names."""
    return OBJECTIVES.get(str(spec.get("class_path")).rpartition(".")[2])


def core_of(stored: dict[str, Any], chosen: dict[str, Any], say: Say) -> dict[str, Any]:
    """What Joint holds: as its checkpoint says, else the config, else the checkpoint that it was to start from."""
    given = arguments(chosen)
    held: dict[str, Any] = arguments(stored).get("generative") or given.get("generative") or {}
    start = given.get("pretrained") or ""
    if held or not os.path.isfile(start):
        return held
    begun = attempt(partial(read_header, Path(start)), say, None)
    return begun.model if begun else {}


def origin_of(config: Described, core: str) -> str | None:
    """Where a fine-tuned run began: AR, BERT or scratch.

    None where no file tells: without config.yaml, and where the run was resumed, since its config then names the module
    to go on with, wherever that came from.
    """
    given = arguments(config.model)
    if given.get("pretrained"):
        return core
    new = given.get("generative")
    if not new or config.resumed:
        return None
    return core if arguments(new).get("start_from") else "scratch"


def network_of(shape: dict[str, Any] | None) -> Network | None:
    """Shape of the transformer, where all of it is known."""
    sizes = [shape.get(name) for name in SHAPE] if shape else [None]
    return None if None in sizes else Network(*sizes)


def evaluation_of(model: dict[str, Any]) -> tuple[str, int]:
    """How Joint finds classes, with the module's defaults."""
    return model.get("evaluation", "mode"), model.get("eval_masks", 5)
