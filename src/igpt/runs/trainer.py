"""fit, validate, test, predict: Lightning's own command line, with igpt's defaults and one-line errors."""

import json
import math
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from igpt.callbacks import (
    ImagesPerSecond,
    LearningRate,
    Likelihood,
    LossGuard,
    Preemption,
    ProgressLine,
    ReplayHooks,
    SampleGrid,
    StepCheckpoint,
    started_by_another,
    stopping_guard,
)
from igpt.data import ImageDataModule
from igpt.modules import PixelModule, recipe_of
from igpt.parsing import CommandParser
from igpt.probing import LayerFeatures
from igpt.runs import records
from igpt.runs.checks import check_devices, check_recipe, check_strategy, preflight
from igpt.runs.folders import check_place, checkpoints_dir, last_checkpoint, move_aside, run_dir
from igpt.runs.loopback import stay_on_this_machine
from igpt.runs.resuming import Beginning, keep_classes, tell_changes, use_checkpoint
from igpt.system import (
    ACCELERATORS,
    LOST,
    Compute,
    UserError,
    atomic_path,
    compute_of,
    load_plugins,
    only_writer,
    reader,
)
from igpt.training import DummyExperiment, PrecisionInput, WholeCheckpoints, disable_rich, is_main_process, ready

KEYWORDS = ("best", "hpc", "registry")


def run(verb: str, arguments: list[str], cli: "type[TrainerCLI] | None" = None) -> "TrainerCLI":
    """Run one of Lightning's four verbs."""
    load_plugins()
    disable_rich()
    TrainerCLI.verb = verb
    with TrainerCLI.held:
        return (cli or TrainerCLI)(
            PixelModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            parser_class=CommandParser,
            parser_kwargs={"prog": "igpt", verb: {"prog": f"igpt {verb}", "usage": f"igpt {verb} [options]"}},
            save_config_callback=RunFolder,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=[verb, *arguments],
        )


class Trainer(pl.Trainer):
    """Lightning's trainer, whose `precision` may be "auto": `TrainerCLI` resolves it before it builds one."""

    def __init__(self, *, precision: Literal["auto"] | PrecisionInput = "auto", **options: Any) -> None:
        super().__init__(precision=None if precision == "auto" else precision, **options)


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger, which writes nothing until `begun`: Lightning has every logger open its files early."""

    begun = False

    @property
    def experiment(self) -> Any:
        """The writer of events, or one that writes nothing."""
        return super().experiment if self.begun else DummyExperiment()

    def save(self) -> None:
        """Bring what was logged to the disk."""
        if self.begun:
            super().save()


class RunFolder(SaveConfigCallback):
    """Begins the folder `runs/NAME`, and writes down there what is run.

    `config.yaml` has every option of the training, also those left at their defaults, and the name. A low-data run also
    gets `subset.json`, the indices of its training images. Every verb adds its command line to `commands.txt`.

    A training does so when the first step is about to be taken: a command that fails before that moves no earlier run
    aside.
    """

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command = command

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The command line of an evaluation, once nothing about it is off any more."""
        if stage != "fit" and trainer.loggers:
            records.add_command(run_dir(self.config), self.command)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move an earlier run aside where this one starts anew, then write each file whole or not at all."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.begun = True
        if not trainer.is_global_zero:
            return
        folder = run_dir(self.config)
        if self.config.ckpt_path:
            try:
                self._write(folder, trainer)
            except UserError as error:  # what stands beside the checkpoints never keeps a run from going on
                print(f"igpt fit: {error}; training goes on", file=sys.stderr)
        else:
            move_aside(folder)
            self._write(folder, trainer)

    def _write(self, folder: Path, trainer: pl.Trainer) -> None:
        records.add_command(folder, self.command)
        self.config.name = folder.name  # so that this file, too, finds the run's folder
        with atomic_path(folder / "config.yaml") as path:
            path.write_text(self.parser.dump(self.config), encoding="utf-8")
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if data.split.labels_per_class is not None:
            with atomic_path(folder / "subset.json") as path:
                path.write_text(json.dumps({"train_indices": data.train_indices}) + "\n", encoding="utf-8")


class TrainerCLI(LightningCLI):
    """One verb of LightningCLI; building only its parser keeps the start quick."""

    verb = "fit"
    beginning = Beginning()
    held = ExitStack()  # what this command keeps other processes from writing to

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the verb that was asked for."""
        return {TrainerCLI.verb: LightningCLI.subcommands()[TrainerCLI.verb]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what the launcher hands over (Lightning's own method warns that sys.argv is not empty)."""
        self.config = parser.parse_args(args)
        self.save_config_kwargs["command"] = shlex.join(["igpt", *args])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name, and the callbacks that every run has."""
        parser.add_argument("--name", type=str | None, default=None, help="run's name; the config's name if left out")
        parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
        parser.add_argument("--tf32", type=bool, default=True, help="on CUDA, let float32 products round to TF32")
        parser.add_argument(
            "--schedule",
            type=Literal["continue", "restart"],
            default="continue",
            help="learning rate of a run that goes on to other max_steps: one cosine to there, or a new one from here",
        )
        parser.add_lightning_class_args(StepCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SampleGrid, "samples")

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, where a file is named; options stay as the command line and the config say.

        (LightningCLI would let the file's hyper-parameters override them silently.)
        """
        config = self.config[self.verb]
        path = config.get("ckpt_path")
        if path is None and self.verb != "fit":
            raise UserError("--ckpt_path is missing; name a file, such as runs/NAME/checkpoints/last.ckpt, or 'last'")
        if path == "last":
            folder = checkpoints_dir(config)
            last = last_checkpoint(folder)
            if last is None and self.verb != "fit":
                raise UserError(f"--ckpt_path last: there is no checkpoint in {folder}; train first, or name a file")
            path = config.ckpt_path = str(last) if last else None
        if path is not None and path not in KEYWORDS:
            self.beginning = use_checkpoint(config.model, path)
            keep_classes(config.data, self.beginning.data)
        config.weights_only = True

    def before_instantiate_classes(self) -> None:
        """Resolve "auto", so that the trainer and config.yaml know the precision itself."""
        config = self.config[self.verb]
        began = self.beginning.precision if self.verb == "fit" else None
        self.compute = ready(compute_for(config.trainer, began), config.tf32)
        config.trainer.precision = self.compute.precision

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make `runs/NAME` the place of everything that this run writes."""
        config, folder = self.config[self.verb], run_dir(self.config[self.verb])
        if self.verb == "fit" and not config.ckpt_path and not config.trainer.fast_dev_run:
            check_place(config)
        check_devices(config.trainer.devices, self.compute)
        preflight(self.model, self.datamodule, fresh=config.ckpt_path is None)
        if self.verb == "fit":
            check_recipe(self.datamodule, config.trainer)
        callbacks: list[Any] = [ImagesPerSecond()]
        if config.trainer.enable_progress_bar is not False and not self._has_callback(ProgressBar):
            callbacks.insert(0, ProgressLine())  # first, so that it ends its line before others print
        self.likelihood = Likelihood(str(folder / "likelihood"))
        if config.trainer.logger in (None, True):
            kwargs["logger"] = RunLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)
            kwargs["logger"].begun = self.verb != "fit"
        if self.verb == "predict":
            callbacks.append(LayerFeatures(str(folder / "features"), config.ckpt_path))
        if self.verb == "test":
            callbacks.append(self.likelihood)
        if self.verb == "fit" and config.trainer.logger is not False:
            callbacks.append(LearningRate())
        if self.verb == "fit" and not config.trainer.fast_dev_run:
            callbacks += [ReplayHooks(), Preemption()]
        if not self._has_callback(LossGuard):
            callbacks.append(
                LossGuard(factor=math.inf)
            )  # no spike is too high, but what is not finite never comes back
        self.trainer_defaults["callbacks"] = callbacks
        every, batches = config.trainer.val_check_interval, config.trainer.accumulate_grad_batches
        if isinstance(every, int) and not isinstance(every, bool):
            kwargs["val_check_interval"] = every * batches  # Lightning counts batches, and all else here counts steps
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        given = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in given):
            kwargs["plugins"] = [*given, WholeCheckpoints()]
        trainer = super().instantiate_trainer(**kwargs)
        stay_on_this_machine(trainer)
        if self.verb == "fit":
            check_strategy(trainer)
            place(trainer.callbacks, checkpoints_dir(config), folder)  # type: ignore[attr-defined]
            self.model.schedule_start = self.beginning.schedule_start(config.schedule, trainer.max_steps)
            if is_main_process() and not config.trainer.fast_dev_run:
                self.held.enter_context(only_writer(folder, "give another --name"))
                if config.checkpoint.dirpath:
                    self.held.enter_context(only_writer(config.checkpoint.dirpath, "give another --checkpoint.dirpath"))
            if config.ckpt_path:
                recipe = recipe_of(trainer, self.datamodule)
                tell_changes(self.beginning.changes(recipe, self.datamodule.spec()), config.schedule)
        return trainer

    def _has_callback(self, kind: type) -> bool:
        """Whether the user gives such a callback."""
        given = self._get(self.config_init, "trainer").get("callbacks") or []
        return any(isinstance(callback, kind) for callback in (given if isinstance(given, list) else [given]))

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; what `validate` and `test` find is added to `runs/NAME/scores.json`.

        Raises:
            SystemExit: with 76, `LossGuard` has stopped the training, so that nothing goes on as if there were a model.
        """
        config, folder = self.config[subcommand], run_dir(self.config[subcommand])
        scored = subcommand in ("validate", "test") and self.trainer.loggers and not config.trainer.fast_dev_run
        if scored:
            if self.limit(subcommand) is not None:
                name = "test" if subcommand == "test" else "val"
                line = (
                    f"--trainer.limit_{name}_batches {self.limit(subcommand)}: these figures are of a part of the split"
                )
                if self.trainer.is_global_zero:
                    print(f"igpt: warning: {line}", file=sys.stderr)
            records.read_scores(folder)  # what is off about the file is said before the work
        if subcommand != "fit" and folder.is_dir() and self.trainer.is_global_zero:
            self.held.enter_context(reader(folder))
        if subcommand == "predict" and self.trainer.is_global_zero:
            self.held.enter_context(only_writer(folder / "features", "give another --name"))
        super()._run_subcommand(subcommand)
        if scored and self.trainer.is_global_zero:
            records.add_score(folder, self.score(subcommand, config))
        if subcommand == "fit" and stopping_guard(self.trainer):  # the same in all processes
            self.trainer.strategy.barrier("igpt.lost")  # torchrun and SLURM end the others when the first has ended
            raise SystemExit(0 if started_by_another(self.trainer) else LOST)

    def limit(self, verb: str) -> int | float | None:
        """How many batches of the split are looked at, or which share of them; None for all."""
        limit: int | float = self.trainer.limit_test_batches if verb == "test" else self.trainer.limit_val_batches
        return None if isinstance(limit, float) and limit == 1 else limit

    def score(self, verb: str, config: Any) -> dict[str, Any]:
        """One entry of scores.json: the command, what was evaluated, on which data, and what came out."""
        entry = {
            "verb": verb,
            "command": self.save_config_kwargs["command"],
            "checkpoint": str(config.ckpt_path),
            "step": self.beginning.step,
            "model": records.plain_part(self.model.spec()),
            "data": self.datamodule.spec(),
            "identity": self.datamodule.identity(),
            "precision": str(self.trainer.precision),
            "metrics": records.plain_metrics(self.trainer.callback_metrics),
        }
        limit = self.limit(verb)
        entry |= {"limit_batches": limit} if limit is not None else {}
        found = self.likelihood.summary()
        return entry | ({"likelihood": found} if found else {})

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs


def compute_for(trainer: Any, began: str | None) -> Compute:
    """Where and how a trainer runs the network.

    Args:
        trainer: its options; an accelerator that igpt does not know is left to Lightning.
        began: precision of the run that is gone on with, which goes on in it unless another one is named.

    Raises:
        UserError: see `igpt.system.hardware.compute_of`.
    """
    precision = trainer.precision or "auto"
    if trainer.accelerator not in ACCELERATORS:
        return Compute(str(trainer.accelerator), "32-true" if precision == "auto" else precision)
    if began is None or precision == began:
        return compute_of(trainer.accelerator, precision, option="--trainer.")
    if precision != "auto":
        rank_zero_warn(f"--trainer.precision {precision}: the run that is resumed began with {began}")
        return compute_of(trainer.accelerator, precision, option="--trainer.")
    kept = compute_of(trainer.accelerator, began, option="--trainer.")
    return replace(kept, reason="the run that is resumed began with it")


def place(callbacks: list[pl.Callback], checkpoints: Path, folder: Path) -> None:
    """Tell callbacks where this run saves, and put the one that begins its folder first.

    Args:
        callbacks: of the trainer, changed in place.
        checkpoints: where checkpoints go.
        folder: of the run.
    """
    for callback in callbacks:
        if isinstance(callback, StepCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(checkpoints)
        if isinstance(callback, LossGuard) and callback.out is None:
            callback.out = str(folder / "result.json")
    callbacks.sort(key=lambda callback: not isinstance(callback, RunFolder))
