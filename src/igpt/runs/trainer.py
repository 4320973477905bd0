"""fit, validate, test, predict: Lightning's own command line, with igpt's defaults and one-line errors."""

import json
import math
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO

from igpt.callbacks import (
    GradientNorm,
    ImagesPerSecond,
    LearningRate,
    Likelihood,
    LossGuard,
    Preemption,
    ProgressLine,
    ReplayHooks,
    RunSummary,
    SampleGrid,
    StepCheckpoint,
    started_by_another,
    stopping_guard,
)
from igpt.checkpoints import find_checkpoint
from igpt.data import ImageDataModule
from igpt.modules import Joint, RecipeModule, recipe_of
from igpt.parsing import CommandParser, renamed
from igpt.probing import LayerFeatures
from igpt.runs import records
from igpt.runs.checks import check_devices, check_recipe, check_rgb, check_strategy, preflight
from igpt.runs.folders import check_place, checkpoints_dir, last_checkpoint, move_aside, run_dir
from igpt.runs.loopback import stay_on_this_machine
from igpt.runs.resuming import Beginning, compute_for, keep_classes, tell_changes, use_checkpoint
from igpt.runs.sizes import infer_sizes
from igpt.system import LOST, UserError, atomic_path, load_plugins, only_writer, reader
from igpt.training import (
    DummyExperiment,
    PrecisionInput,
    WholeCheckpoints,
    disable_rich,
    is_main_process,
    log_at,
    ready,
)


def run(verb: str, arguments: list[str], cli: "type[TrainerCLI] | None" = None) -> "TrainerCLI":
    """Run one of Lightning's four verbs."""
    load_plugins()
    disable_rich()
    TrainerCLI.verb = verb
    with TrainerCLI.held:
        return (cli or TrainerCLI)(
            RecipeModule,
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
            args=[verb, *renamed(arguments, "--ckpt_path")],
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
        """The writer of events, once begun."""
        return super().experiment if self.begun else DummyExperiment()

    def save(self) -> None:
        """Bring what was logged to the disk."""
        if self.begun:
            super().save()


class RunFolder(SaveConfigCallback):
    """Begins the folder `runs/NAME`, and writes down there what is run.

    config.yaml has every option of the training, subset.json the indices of a low-data run's images, and commands.txt
    the command line of every verb. A training begins its folder when the first step is about to be taken: a command
    that fails before that moves no earlier run aside.
    """

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command = command

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The command line of an evaluation, once nothing about it is off any more."""
        if stage != "fit" and trainer.loggers:
            records.add_command(run_dir(self.config), self.command)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the folder; an earlier run is moved aside where this one starts anew."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.begun = True
        if not trainer.is_global_zero:
            return
        folder = run_dir(self.config)
        if not self.config.ckpt_path:
            move_aside(folder)
        try:
            self._write(folder, trainer)
        except UserError as error:
            if not self.config.ckpt_path:
                raise
            print(f"igpt fit: {error}; training goes on", file=sys.stderr)  # the checkpoints are what counts

    def _write(self, folder: Path, trainer: pl.Trainer) -> None:
        records.add_command(folder, self.command)
        self.config.name = folder.name  # so that this file, too, finds the run's folder
        with atomic_path(folder / "config.yaml") as path:
            path.write_text(self.parser.dump(self.config, skip_unset=False), encoding="utf-8")
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
        """Parse what the launcher hands over; Lightning's own method would warn that sys.argv is not empty."""
        self.config = parser.parse_args(args)
        infer_sizes(self.config[self.verb])
        self.save_config_kwargs["command"] = shlex.join(["igpt", *args])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name, and the callbacks that every run has."""
        assert isinstance(parser, CommandParser)
        parser.add_argument("--name", type=str | None, default=None, help="run's name; the config's name if left out")
        parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
        parser.add_argument("--tf32", type=bool, default=True, help="on CUDA, let float32 products round to TF32")
        parser.add_argument(
            "--schedule",
            type=Literal["continue", "restart"],
            default="continue",
            help="schedule of the rate of a run that goes on to other max_steps: one to there, or a new one from here",
        )
        if self.verb == "test":
            parser.add_argument("--rgb", action="store_true", help="also bits per dimension of RGB")
        parser.add_lightning_class_args(StepCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SampleGrid, "samples")

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, where a file is named; its hyper-parameters never override options."""
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
        elif path is not None:
            path = config.ckpt_path = str(find_checkpoint(path))
        if path is not None:
            self.beginning = use_checkpoint(config.model, path)
            keep_classes(config.data, self.beginning.data)
        config.weights_only = True

    def before_instantiate_classes(self) -> None:
        """Resolve "auto", so that the trainer and config.yaml know the precision itself."""
        config = self.config[self.verb]
        began = self.beginning.precision if self.verb == "fit" else None
        self.compute = ready(compute_for(config.trainer, began), config.tf32)
        config.trainer.precision = self.compute.precision
        if self.verb == "predict":
            config.return_predictions = False  # they are in files

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make `runs/NAME` the place of everything that this run writes."""
        config, folder = self.config[self.verb], run_dir(self.config[self.verb])
        if self.verb == "fit" and not config.ckpt_path and not config.trainer.fast_dev_run:
            check_place(config)
        check_devices(config.trainer.devices, self.compute)
        if config.get("rgb"):
            check_rgb(self.model, self.datamodule)
        preflight(self.model, self.datamodule, fresh=config.ckpt_path is None)
        if config.ckpt_path:
            self.model.core.began = self.beginning.began
        if self.verb == "fit":
            check_recipe(self.datamodule, config.trainer)
        self.trainer_defaults["callbacks"] = self._own_callbacks(config, folder)
        if config.trainer.logger in (None, True):
            kwargs["logger"] = RunLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)
            kwargs["logger"].begun = self.verb != "fit"
        every = config.trainer.val_check_interval
        if config.trainer.enable_model_summary is None:
            kwargs["enable_model_summary"] = False  # the opening line says it
        if isinstance(every, int) and not isinstance(every, bool):  # Lightning counts batches, and all else here steps
            kwargs["val_check_interval"] = every * config.trainer.accumulate_grad_batches
        if not any(isinstance(plugin, CheckpointIO) for plugin in self._given("plugins")):
            kwargs["plugins"] = [*self._given("plugins"), WholeCheckpoints()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:  # an accelerator or strategy that is none, or no number of devices
            raise UserError(f"--trainer: {' '.join(str(error).split())}") from error
        stay_on_this_machine(trainer)
        if self.verb == "fit":
            self._begin(trainer, config, folder)
            if is_main_process():
                print(self.opening_line(trainer, folder))
        return trainer

    def opening_line(self, trainer: pl.Trainer, folder: Path) -> str:
        """What is trained, on what, how long, how, and where to."""
        data, side, recipe = self.datamodule, self.datamodule.resolution, recipe_of(trainer, self.datamodule)
        size = sum(parameter.numel() for parameter in self.model.parameters())
        begun = f", from step {self.beginning.step:,} on" if self.beginning.step else ""
        processes = f" in {trainer.world_size} processes" if trainer.world_size > 1 else ""
        return (
            f"training {type(self.model).__name__}, {size:,} parameters, on {data.size('train'):,} images of "
            f"{type(data).__name__} at {side}x{side}: {recipe['max_steps']:,} steps of {recipe['images_a_step']} images"
            f"{begun}, {trainer.precision} on {self.compute.device}{processes}, to {folder}"
        )

    def _begin(self, trainer: pl.Trainer, config: Any, folder: Path) -> None:
        """Give a training places for what it writes, locks on them, and the step where its schedule began."""
        check_strategy(trainer, self.model)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, StepCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(checkpoints_dir(config))
            if isinstance(callback, LossGuard) and callback.out is None:
                callback.out = str(folder / "result.json")
        callbacks.sort(key=lambda callback: not isinstance(callback, RunFolder))  # first, to begin the folder
        self.model.schedule_start = self.beginning.schedule_start(config.schedule, trainer.max_steps)
        if is_main_process() and not config.trainer.fast_dev_run:
            self.held.enter_context(only_writer(folder, "give another --name"))
            if config.checkpoint.dirpath:
                self.held.enter_context(only_writer(config.checkpoint.dirpath, "give another --checkpoint.dirpath"))
        if config.ckpt_path:
            recipe = recipe_of(trainer, self.datamodule)
            tell_changes(self.beginning.changes(recipe, self.datamodule.spec()), config.schedule)

    def _own_callbacks(self, config: Any, folder: Path) -> list[pl.Callback]:
        """The callbacks of igpt's own that go with the verb."""
        training = self.verb == "fit"
        self.likelihood = Likelihood(str(folder / "likelihood"), rgb=config.get("rgb", False))
        callbacks: list[pl.Callback] = [ImagesPerSecond()]
        if config.trainer.enable_progress_bar is not False and not self._has_callback(ProgressBar):
            callbacks.insert(0, ProgressLine())  # first, so that it ends its line before others print
        if self.verb == "predict":
            callbacks.append(LayerFeatures(str(folder / "features"), config.ckpt_path))
        if self.verb == "test":
            callbacks.append(self.likelihood)
        if training and config.trainer.logger is not False:
            dumped = self._parser(self.verb).dump(config)
            callbacks += [LearningRate(), GradientNorm(), RunSummary(dumped, records.headline(config))]
        if training and not config.trainer.fast_dev_run:
            callbacks += [ReplayHooks(), Preemption()]
        if not self._has_callback(LossGuard):  # no spike is too high, but what is not finite never comes back
            callbacks.append(LossGuard(factor=math.inf))
        return callbacks

    def _given(self, option: str) -> list[Any]:
        """What the user gives as an option of the trainer, as a list."""
        given = self._get(self.config_init, "trainer").get(option) or []
        return given if isinstance(given, list) else [given]

    def _has_callback(self, kind: type) -> bool:
        return any(isinstance(callback, kind) for callback in self._given("callbacks"))

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; scores are added to scores.json, and a training that `LossGuard` stopped exits with 76."""
        config, folder, main = self.config[subcommand], run_dir(self.config[subcommand]), self.trainer.is_global_zero
        scored = subcommand in ("validate", "test") and self.trainer.loggers and not config.trainer.fast_dev_run
        if scored:
            if main and (limit := self.limit(subcommand)) is not None:
                option = "--trainer.limit_test_batches" if subcommand == "test" else "--trainer.limit_val_batches"
                print(f"igpt: warning: {option} {limit}: these figures are of a part of the split", file=sys.stderr)
            records.read_scores(folder)  # what is off about the file is said before the work
        if subcommand != "fit" and folder.is_dir() and main:
            self.held.enter_context(reader(folder))
        if subcommand == "predict" and main:
            self.held.enter_context(only_writer(folder / "features", "give another --name"))
        if subcommand in ("validate", "test"):
            log_at(self.trainer, max(0, self.beginning.step - 1))  # where the training logged that step's values
        super()._run_subcommand(subcommand)
        if subcommand == "predict" and main:
            print(f"wrote the features of every layer and split: {folder / 'features'}")
        if scored and main:
            records.add_score(folder, self.score(subcommand, config))
            if accuracies := records.accuracies(self.trainer.callback_metrics):
                print(accuracies)
        if subcommand == "fit" and stopping_guard(self.trainer):  # the same in all processes
            self.trainer.strategy.barrier("igpt.lost")  # torchrun and SLURM end the others when the first has ended
            raise SystemExit(0 if started_by_another(self.trainer) else LOST)
        if subcommand == "fit" and main and not config.trainer.fast_dev_run:
            step, most = self.trainer.global_step, self.trainer.max_steps
            short = f", stopped at step {step:,} of {most:,}" if step < most else ""
            look = f"look at it: tensorboard --logdir {folder.parent}"
            print(f"wrote {folder}{short}; {look}; next: {self.next_command(folder)}")

    def next_command(self, folder: Path) -> str:
        """What one would do with a finished training."""
        if isinstance(self.model, Joint):
            return f"igpt test --config {folder / 'config.yaml'} --ckpt {folder}"
        return f"igpt {'probe' if self.datamodule.num_classes else 'sample --out samples.png'} --ckpt {folder}"

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
        extra = {
            "limit_batches": self.limit(verb),
            "likelihood": self.likelihood.summary(),
            "began": self.model.core.began,
            "confusion": records.confusion(self.model.counts, self.datamodule.class_names)
            if isinstance(self.model, Joint) and self.model.counts is not None
            else None,
        }
        return entry | {name: value for name, value in extra.items() if value is not None}
