"""What a resumed run brings along from its checkpoint, and how it differs from what it is given now."""

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, check_sums, plain, read_checkpoint, read_meta, weights_of
from igpt.modules import step_of
from igpt.system import ACCELERATORS, Compute, UserError, compute_of
from igpt.training import ADDED, Recipe, is_main_process

RECIPE = {one.name for one in fields(Recipe)}
NOT_COMPARED = {
    *("palette", "compile", "recompute", "transformer", "start_from", "pretrained", "generative", "order", "coarse"),
    *("batch_size", "num_workers"),  # of the data: the recipe's images_a_step says what matters
}


@dataclass(frozen=True)
class Beginning:
    """Where a run goes on from, as far as the checkpoint says so."""

    step: int = 0  # optimizer steps done
    precision: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)  # see `igpt.modules.recipe_of`; and where the schedule began
    data: dict[str, Any] | None = None  # what it was trained on, as plain data
    began: dict[str, Any] | None = None  # checkpoint and step that the training itself began with

    def schedule_start(self, schedule: str, max_steps: int) -> int:
        """The step at which the learning rate's schedule began; "restart" begins anew where it was to end elsewhere."""
        if schedule == "restart" and self.recipe.get("max_steps") != max_steps:
            return self.step
        return int(self.recipe.get("schedule_start", 0))

    def changes(self, recipe: dict[str, int], data: dict[str, Any]) -> list[str]:
        """What a resumed run is given otherwise than before, as `name old (now new)`."""
        found = differences(self.recipe, recipe)
        if self.data is not None:
            one, other = ({"class": spec["class_path"], **spec["init_args"]} for spec in (self.data, data))
            found += [f"data.{text}" for text in differences(one, other)]
        return found


def tell_changes(changes: list[str], schedule: str) -> None:
    """One line where a run goes on otherwise than it began."""
    if changes and is_main_process():
        rate = {"continue": "one schedule to there, on which it may rise again", "restart": "warmed up anew from here"}
        longer = any(text.startswith("max_steps ") for text in changes)
        told = f"; learning rate: {rate[schedule]} (--schedule {schedule})" if longer else ""
        print(f"igpt fit: the run goes on with {', '.join(changes)}{told}", file=sys.stderr)


def use_checkpoint(model: Any, path: str) -> Beginning:
    """Raise a UserError for a checkpoint of another network than the config's; name other differences in a warning."""
    content = read_meta(path) if Path(path).is_dir() else read_checkpoint(path)
    if is_main_process():  # of a folder of parts, one process reads all weights
        if Path(path).is_dir():
            check_sums(path)
        state = content.get("state_dict")
        held = state.items() if isinstance(state, dict) else weights_of(path) if Path(path).is_dir() else ()
        check_finite(held, f"--ckpt_path {path}")
    header = content[CHECKPOINT_KEY]["model"]
    stored, given = header["init_args"], model.init_args.as_dict()
    earlier = given.get("pretrained") or given.get("start_from")  # what older versions knew of where a run began
    if header["class_path"].rpartition(".")[2] != model.class_path.rpartition(".")[2]:
        raise UserError(f"--ckpt_path {path}: the checkpoint holds {header['class_path']}, the config another class")
    if "generative" in stored:  # it holds the whole network, so that the file it began with is not needed
        model.init_args.pretrained, model.init_args.generative = None, stored["generative"]
    shape = given.get("transformer") or {}
    network = differences(dict.fromkeys(shape) | stored.get("transformer", {}), shape)  # what it lacks was None
    for name in ("order", "coarse", "augment", "classes"):
        if stored.get(name) != given.get(name):
            network.append(f"{name} {stored.get(name)} (now {given.get(name)})")
    shaped = "transformer" if "transformer" in stored or "generative" in stored else "network"
    if shaped == "network":  # of another family all is network but the recipe
        network += differences({name: value for name, value in stored.items() if name not in RECIPE}, given)
    if network:
        raise UserError(f"--ckpt_path {path}: the checkpoint has {shaped} {', '.join(network)}; use its config")
    stored = ADDED | stored
    if (kept := stored["optimizer"]) != given.get("optimizer", "adam"):
        raise UserError(
            f"--ckpt_path {path}: the checkpoint's optimizer is {kept}, the config's {given['optimizer']}; use its "
            "config, or begin a new run with --model.init_args.start_from"
        )
    if recipe := differences(stored, given):
        rank_zero_warn(f"--ckpt_path {path} was trained with {', '.join(recipe)}; a resumed optimizer keeps its own")
    known = content[CHECKPOINT_KEY]
    began = known.get("began") or ({"checkpoint": earlier} if earlier else None)
    return Beginning(step_of(content), known.get("precision"), known.get("recipe") or {}, known.get("data"), began)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What has another value, of the names that both know, as `name old (now new)`."""
    names = sorted(set(old) & set(new) - NOT_COMPARED)
    return [f"{name} {old[name]} (now {new[name]})" for name in names if plain(old[name]) != plain(new[name])]


def keep_classes(data: Any, stored: dict[str, Any] | None) -> None:
    """Have the data's classes stand in the order of the checkpoint's, where the config leaves the order open.

    Labels and splits then stay, where both are of one class of data modules and one folder.
    """
    given = data.get("init_args")
    if given is None or given.get("classes") != "natural" or not isinstance(stored, dict):
        return
    found = stored.get("init_args", {})
    same = data.class_path.rpartition(".")[2] == str(stored.get("class_path")).rpartition(".")[2]
    if same and found.get("root") == given.get("root"):
        given.classes = found.get("classes", "sorted")  # older versions knew no other order


def compute_for(trainer: Any, began: str | None) -> Compute:
    """Where and how a trainer runs the network; an accelerator that igpt does not know is left to Lightning.

    Args:
        trainer: its options.
        began: precision of the run that is gone on with, which goes on in it unless another one is named.
    """
    precision = trainer.precision or "auto"
    if trainer.accelerator not in ACCELERATORS:
        return Compute(str(trainer.accelerator), "32-true" if precision == "auto" else precision)
    if began is not None and precision == "auto":
        kept = compute_of(trainer.accelerator, began, option="--trainer.")
        return replace(kept, reason="the run that is resumed began with it")
    if began not in (None, precision):
        rank_zero_warn(f"--trainer.precision {precision}: the run that is resumed began with {began}")
    return compute_of(trainer.accelerator, precision, option="--trainer.")
