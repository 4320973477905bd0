"""What is looked at before a run is started, so that what is off costs one line and leaves nothing behind."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_warn

from igpt.callbacks import OnlineProbe, SampleGrid
from igpt.checkpoint import CHECKPOINT_KEY, read_checkpoint
from igpt.commands.device import is_main_process
from igpt.data import ImageDataModule
from igpt.errors import UserError, UserErrors
from igpt.files import lies_in
from igpt.loading import step_of
from igpt.modules import Joint, PixelModule
from igpt.parts import read_meta
from igpt.spec import plain

NOT_COMPARED = {"palette", "compile", "recompute", "transformer", "start_from", "pretrained", "generative", "order"}

LEAST = {"accumulate_grad_batches": 1, "log_every_n_steps": 0, "num_sanity_val_steps": -1}  # of the trainer's numbers


def preflight(model: PixelModule, data: ImageDataModule, fresh: bool) -> None:
    """Look for the palette and the data before anything is started; report all that is missing at once.

    Raises:
        UserErrors: a line for each thing that is missing, with what mends it.
    """
    model.core.check_resolution(data.resolution)
    problems = []
    checks = [model.core.check_ready] if fresh else []
    if is_main_process():
        checks.append(data.prepare_data)
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(error)
    if problems:
        raise UserErrors(problems)
    data.setup("fit")
    if not model.core.palette.is_blank:  # a checkpoint's is looked at once it is loaded
        model.core.check_colors(data)
    if isinstance(model, Joint):
        check_classes(model, data)


def check_classes(model: Joint, data: ImageDataModule) -> None:
    """Raise a UserError unless every training image has one of the classes that the model knows."""
    labels = torch.as_tensor(data.images("train").labels)
    if int(labels.min()) < 0:
        raise UserError("--data: some training images have no label; fine-tuning needs labelled images")
    if int(labels.max()) >= model.num_classes:
        classes = int(labels.max()) + 1
        raise UserError(
            f"model.init_args.num_classes is {model.num_classes} but the data have {classes}; make them equal"
        )


def check_recipe(data: ImageDataModule, trainer: Any) -> None:
    """Look for settings that cannot train, before the run's folder is made.

    Raises:
        UserError: no number of steps is set, a number is too small, an accelerator or strategy does not exist, or a
            batch is larger than the training split.
    """
    for name, least in LEAST.items():
        if (trainer.get(name) if trainer.get(name) is not None else least) < least:
            raise UserError(f"--trainer.{name} {trainer[name]} must be at least {least}")
    known = {"accelerator": ["auto", "gpu", *AcceleratorRegistry], "strategy": ["auto", *StrategyRegistry]}
    for name, names in known.items():
        if isinstance(trainer.get(name), str) and trainer[name] not in names:
            raise UserError(
                f"--trainer.{name} {trainer[name]} does not exist; choose auto, or one of {', '.join(names)}"
            )
    devices = str(trainer.get("devices"))
    if devices in ("0", "[]", "") or (devices.startswith("-") and devices != "-1"):
        raise UserError(f"--trainer.devices {devices} is no number of devices; give auto, 1 or more")
    if not trainer.fast_dev_run and trainer.max_steps < 1:
        raise UserError("--trainer.max_steps is not set; the cosine schedule ends there, so give a number of steps")
    data.train_dataloader()


def check_strategy(trainer: pl.Trainer) -> None:
    """Refuse what a strategy cannot do, before the run's folder is made.

    Raises:
        UserError: pictures are to be drawn, or layers probed, while the weights are shared out over processes.
    """
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SampleGrid) and (callback.num or callback.completions):
            raise UserError(
                "--samples: no pictures can be drawn while the weights are shared out; give --samples.num 0 and "
                "--samples.completions 0, and use igpt sample afterwards"
            )
        if isinstance(callback, OnlineProbe):
            raise UserError("OnlineProbe cannot read weights that are shared out; leave it out, use igpt probe later")


class Beginning(NamedTuple):
    """Where a run goes on from: the step, and the precision and data it was trained with, if the checkpoint says so."""

    step: int = 0
    precision: str | None = None
    data: dict[str, Any] | None = None


def use_checkpoint(model: Any, path: str) -> Beginning:
    """Refuse a checkpoint whose network differs from the config's; name other differences in a warning.

    A fine-tuned checkpoint holds its whole network, so the config's `pretrained` file is not needed any more.

    Raises:
        UserError: the checkpoint cannot be read, or holds another network.
    """
    content = read_meta(path) if Path(path).is_dir() else read_checkpoint(path)
    header = content[CHECKPOINT_KEY]["model"]
    stored, given = header["init_args"], model.init_args.as_dict()
    if header["class_path"].rpartition(".")[2] != model.class_path.rpartition(".")[2]:
        raise UserError(f"--ckpt_path {path}: the checkpoint holds {header['class_path']}, the config another class")

    def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        names = sorted(set(old) & set(new) - NOT_COMPARED)
        return [f"{name} {old[name]} (now {new[name]})" for name in names if plain(old[name]) != plain(new[name])]

    if "generative" in stored:
        model.init_args.pretrained, model.init_args.generative = None, stored["generative"]
    network = differences(stored.get("transformer", {}), given.get("transformer") or {})
    if stored.get("order") != given.get("order"):
        network.append(f"order {stored.get('order')} (now {given.get('order')})")
    if network:
        raise UserError(f"--ckpt_path {path}: the checkpoint has transformer {', '.join(network)}; use its config")
    recipe = differences(stored, given)
    if recipe:
        rank_zero_warn(f"--ckpt_path {path} was trained with {', '.join(recipe)}; a resumed optimizer keeps its own")
    return Beginning(step_of(content), content[CHECKPOINT_KEY].get("precision"), content[CHECKPOINT_KEY].get("data"))


def keep_classes(data: Any, stored: dict[str, Any] | None) -> None:
    """Have the data's classes stand in the order of the checkpoint that is used, so that labels and splits stay.

    Only where the config leaves the order open, and both are of one class of data modules and one folder.

    Args:
        data: the config's data module.
        stored: the checkpoint's.
    """
    given = data.get("init_args")
    if given is None or given.get("classes") != "natural" or not isinstance(stored, dict):
        return
    found = stored.get("init_args", {})
    same = data.class_path.rpartition(".")[2] == str(stored.get("class_path")).rpartition(".")[2]
    if same and found.get("root") == given.get("root"):
        given.classes = found.get("classes", "sorted")  # older versions knew no other order


def files_used(config: Any) -> list[tuple[str, Path]]:
    """Options and files that a new run begins with: its configs, and checkpoints that hold its first weights."""
    used = [("--config", file) for file in config.get("config") or []]
    given = [(f"--model.{name}", value) for name, value in config.model.items()]
    used += [(option, value) for option, value in given if option.endswith((".start_from", ".pretrained"))]
    return [(option, Path(str(file))) for option, file in used if file is not None]


def keep_earlier_run(run_dir: Path, config: Any) -> None:
    """Move an earlier run of the same name aside, so that starting anew never loses one.

    Raises:
        UserError: a file that the new run begins with lies in that folder, and would not be found there any more.
    """
    if not run_dir.is_dir():
        return
    for option, file in files_used(config):
        if lies_in(file, run_dir):
            raise UserError(
                f"--name: {option} {file} lies in {run_dir}, which would be moved aside as an earlier run; give the "
                f"new run another name, such as --name {run_dir.name}_more"
            )
    if not is_main_process():
        return
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(aside)
    print(
        f"{run_dir} held an earlier run, which is now {aside}; to go on with a run, use --ckpt_path last",
        file=sys.stderr,
    )
