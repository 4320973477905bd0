"""What is looked at before a run is started, so that what is off costs one line and leaves nothing behind."""

import os
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from igpt.callbacks import OnlineProbe, SampleGrid
from igpt.data import ImageDataModule, any_unlabelled
from igpt.modules import Joint, PixelModule
from igpt.system import Compute, UserError, UserErrors
from igpt.training import is_main_process

LEAST = {  # of the trainer's numbers
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
}
ABOVE_ZERO = (
    "limit_train_batches",
    "max_epochs",
    "val_check_interval",
)  # 0 of them would train nothing, or divide by 0


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
    if any_unlabelled(labels):
        raise UserError("--data: some training images have no label; fine-tuning needs labelled images")
    if int(labels.max()) >= model.num_classes:
        classes = int(labels.max()) + 1
        raise UserError(
            f"model.init_args.num_classes is {model.num_classes} but the data have {classes}; make them equal"
        )


def check_recipe(data: ImageDataModule, trainer: Any) -> None:
    """Look for settings that cannot train, before the run's folder is made.

    Raises:
        UserError: no number of steps is set, a number is too small, there is nothing to train on, an accelerator or
            strategy does not exist, or a batch is larger than the training split.
    """
    for name, least in LEAST.items():
        if (trainer.get(name) if trainer.get(name) is not None else least) < least:
            raise UserError(f"--trainer.{name} {trainer[name]} must be at least {least}")
    if trainer.overfit_batches:
        raise UserError(
            "--trainer.overfit_batches would need another order of the images than igpt's; for a quick look give "
            "--trainer.limit_train_batches 10, for few images --data.init_args.split.labels_per_class 10"
        )
    for name in ABOVE_ZERO:
        if trainer.get(name) is not None and trainer[name] == 0:
            raise UserError(f"--trainer.{name} {trainer[name]} must be above 0")
    known = {"accelerator": ["auto", "gpu", *AcceleratorRegistry], "strategy": ["auto", *StrategyRegistry]}
    for name, names in known.items():
        if isinstance(trainer.get(name), str) and trainer[name] not in names:
            raise UserError(
                f"--trainer.{name} {trainer[name]} does not exist; choose auto, or one of {', '.join(names)}"
            )
    devices = str(trainer.get("devices"))
    wrong = devices in ("0", "[]", "") or (devices.startswith("-") and devices != "-1")
    if wrong or not (devices in ("None", "auto") or any(letter.isdigit() for letter in devices)):
        raise UserError(f"--trainer.devices {devices} is no number of devices; give auto, 1 or more")
    if not trainer.fast_dev_run and trainer.max_steps < 1:
        raise UserError("--trainer.max_steps is not set; the cosine schedule ends there, so give a number of steps")
    data.train_dataloader()


def check_devices(devices: Any, compute: Compute) -> None:
    """Refuse more processes on a CPU than it has cores, before the first is started; two are always allowed.

    Args:
        devices: as given to the trainer.
        compute: where the network runs.

    Raises:
        UserError: as said.
    """
    cores = os.cpu_count() or 1
    if compute.device == "cpu" and str(devices).isdigit() and int(devices) > max(cores, 2):
        raise UserError(f"--trainer.devices {devices}: this machine has {cores} cores; give at most so many processes")


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
