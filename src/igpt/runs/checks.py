"""Checks before a run is started, so that what is off costs one line and leaves nothing behind."""

import os
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from igpt.callbacks import OnlineProbe, SampleGrid
from igpt.data import ImageDataModule, any_unlabelled
from igpt.modules import Autoregressive, Joint, RecipeModule
from igpt.system import Compute, UserError, UserErrors
from igpt.training import is_main_process

ABOVE_ZERO = ("accumulate_grad_batches", "check_val_every_n_epoch", "limit_train_batches", "max_epochs",
              "val_check_interval")  # fmt: skip


def preflight(model: RecipeModule, data: ImageDataModule, fresh: bool) -> None:
    """Look for the palette and the data; a UserErrors names all that is missing at once, with what mends it."""
    model.core.check_resolution(data.shape)
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
    if not (model.core.has_palette and model.core.palette.is_blank):  # a checkpoint's is looked at once it is loaded
        model.core.check_colors(data)
    if isinstance(model, Joint):
        check_classes(model, data)
    elif model.core.classes is not None:
        check_told_classes(model.core.classes, data)


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


def check_rgb(model: RecipeModule, data: ImageDataModule) -> None:
    """Raise a UserError where there are no bits per dimension of RGB to be found by way of a palette."""
    kind = type(model).__name__
    if not isinstance(model, Autoregressive):
        raise UserError(f"--rgb: {kind} gives images no exact likelihood, as only AR does; leave --rgb out")
    if not model.has_palette:
        raise UserError(f"--rgb: {kind} predicts RGB values itself and tells bits_per_dim anyway; leave --rgb out")
    if model.stride > 1:
        raise UserError("--rgb: VQ tokens give colours no likelihood; leave --rgb out")
    if data.palette_sha256 is not None:
        raise UserError(
            f"--rgb: the images of {type(data).__name__} have the colours of a palette alone; leave --rgb out, or name "
            "the data that they were made from with --data"
        )


def check_told_classes(classes: int, data: ImageDataModule) -> None:
    """Raise a UserError unless the data have as many classes as the model is told."""
    if data.num_classes == 0:
        raise UserError(
            f"--data: {type(data).__name__} has no labels, and the model is told classes; give data with labels, or "
            "leave model.init_args.classes out"
        )
    if data.num_classes != classes:
        raise UserError(f"model.init_args.classes is {classes} but the data have {data.num_classes}; make them equal")


def check_recipe(data: ImageDataModule, trainer: Any) -> None:
    """Raise a UserError for options of the trainer, or sizes of batch and data, that would train nothing."""
    for name in ABOVE_ZERO:  # Lightning would train nothing, or divide by 0; -1 epochs are endless
        value = trainer.get(name)
        if isinstance(value, int | float) and value <= 0 and (name, value) != ("max_epochs", -1):
            raise UserError(f"--trainer.{name} {trainer[name]} must be above 0")
    if trainer.overfit_batches:
        raise UserError(
            "--trainer.overfit_batches would need another order of the images than igpt's; for a quick look give "
            "--trainer.limit_train_batches 10, for few images --data.init_args.split.labels_per_class 10"
        )
    if not trainer.fast_dev_run and trainer.max_steps < 1:
        raise UserError("--trainer.max_steps is not set; the schedule ends there, so give a number of steps")
    data.train_dataloader()


def check_devices(devices: Any, compute: Compute) -> None:
    """Raise a UserError for more processes on a CPU than it has cores; two are always allowed."""
    cores = os.cpu_count() or 1
    if compute.device == "cpu" and str(devices).isdigit() and int(devices) > max(cores, 2):
        raise UserError(f"--trainer.devices {devices}: this machine has {cores} cores; give at most so many processes")


def check_strategy(trainer: pl.Trainer, model: RecipeModule) -> None:
    """Raise a UserError for what needs whole weights, where a strategy shards them across processes."""
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    if model.recipe.optimizer == "muon":
        raise UserError(
            "--model.init_args.optimizer muon needs whole matrices, and this strategy shards them; give "
            "--model.init_args.optimizer adam, or --trainer.strategy ddp"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SampleGrid) and (callback.num or callback.completions):
            raise UserError(
                "--samples: no pictures can be drawn while the weights are sharded; give --samples.num 0 and "
                "--samples.completions 0, and use igpt sample afterwards"
            )
        if isinstance(callback, OnlineProbe):
            raise UserError("OnlineProbe cannot read sharded weights; leave it out, use igpt probe later")
