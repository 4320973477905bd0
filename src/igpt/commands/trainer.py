"""fit, validate, test, predict: Lightning's own command line, with igpt's defaults and one-line errors."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.fabric.connector import _PRECISION_INPUT  # type: ignore[attr-defined]  # the type of an option
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops import evaluation_loop
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.trainer.connectors import callback_connector
from lightning.pytorch.utilities import rank_zero_warn

from igpt.callbacks import (
    CatchUp,
    ImagesPerSecond,
    LayerFeatures,
    Likelihood,
    Preemption,
    ProgressLine,
    SampleGrid,
    StepCheckpoint,
)
from igpt.callbacks.preemption import started_by_another
from igpt.callbacks.step_checkpoint import stopping_guard
from igpt.checkpoint import LAST
from igpt.commands import records
from igpt.commands.checks import (
    Beginning,
    check_recipe,
    check_strategy,
    keep_classes,
    keep_earlier_run,
    preflight,
    use_checkpoint,
)
from igpt.commands.device import ready
from igpt.commands.parsing import CommandParser
from igpt.data import ImageDataModule
from igpt.errors import LOST, UserError
from igpt.files import atomic_path
from igpt.hardware import ACCELERATORS, Compute, compute_of
from igpt.modules import PixelModule
from igpt.plugins import load_plugins
from igpt.saving import WholeCheckpoints

KEYWORDS = ("best", "hpc", "registry")


def run(verb: str, arguments: list[str], cli: "type[TrainerCLI] | None" = None) -> "TrainerCLI":
    """Run one of Lightning's four verbs."""
    load_plugins()
    write_plainly()
    TrainerCLI.verb = verb
    return (cli or TrainerCLI)(
        PixelModule,
        ImageDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=Trainer,
        parser_class=CommandParser,
        parser_kwargs={"prog": "igpt", verb: {"prog": f"igpt {verb}", "usage": f"igpt {verb} [options]"}},
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=[verb, *arguments],
    )


def write_plainly() -> None:
    """Have Lightning write bars and tables as plain text, also where `rich` came along with another package.

    Logs then look the same everywhere, and their figures can be read by programs.
    """
    for module in (callback_connector, evaluation_loop):
        module._RICH_AVAILABLE = False  # type: ignore[attr-defined]  # there is no option for it


class Trainer(pl.Trainer):
    """Lightning's trainer, whose `precision` may be "auto": `TrainerCLI` resolves it before it builds one."""

    def __init__(self, *, precision: Literal["auto"] | _PRECISION_INPUT = "auto", **options: Any) -> None:
        super().__init__(precision=None if precision == "auto" else precision, **options)


class SaveConfig(SaveConfigCallback):
    """Writes `runs/NAME/config.yaml`: every option of the training, also those left at their defaults, and the name.

    A low-data run also gets `subset.json`, the indices of its training images. Every verb adds its command line to
    `runs/NAME/commands.txt`, once nothing about it is off any more.
    """

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command = command

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write each file whole or not at all."""
        folder = trainer.loggers[0].log_dir if trainer.loggers else None  # trainer.log_dir would wait for all ranks
        if folder is None:
            return
        records.add_command(run_dir(self.config), self.command)
        if stage != "fit":
            return  # the config of the training stays
        self.config.name = run_dir(self.config).name  # so that this file, too, finds the run's folder
        with atomic_path(Path(folder) / "config.yaml") as path:
            path.write_text(self.parser.dump(self.config), encoding="utf-8")
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if data.split.labels_per_class is not None:
            with atomic_path(Path(folder) / "subset.json") as path:
                path.write_text(json.dumps({"train_indices": data.train_indices}) + "\n", encoding="utf-8")


class TrainerCLI(LightningCLI):
    """One verb of LightningCLI; building only its parser keeps the start quick."""

    verb = "fit"
    beginning = Beginning()

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
            last = run_dir(config) / "checkpoints" / LAST
            if not last.exists() and self.verb != "fit":
                raise UserError(f"--ckpt_path last: {last} does not exist; train first, or name a file")
            path = config.ckpt_path = str(last) if last.exists() else None
        if path is not None and path not in KEYWORDS:
            self.beginning = use_checkpoint(config.model, path)
            keep_classes(config.data, self.beginning.data)
        config.weights_only = True

    def before_instantiate_classes(self) -> None:
        """Resolve "auto", so that the trainer and config.yaml know the precision itself."""
        config = self.config[self.verb]
        began = self.beginning.precision if self.verb == "fit" else None
        compute = ready(compute_for(config.trainer, began), config.tf32)
        config.trainer.precision = compute.precision

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make `runs/NAME` the place of everything that this run writes."""
        config, folder = self.config[self.verb], run_dir(self.config[self.verb])
        preflight(self.model, self.datamodule, fresh=config.ckpt_path is None)
        if self.verb == "fit":
            check_recipe(self.datamodule, config.trainer)
        callbacks: list[Any] = [ImagesPerSecond()]
        if config.trainer.enable_progress_bar is not False and not self._has_callback(ProgressBar):
            callbacks.insert(0, ProgressLine())  # first, so that it ends its line before others print
        self.likelihood = Likelihood(str(folder / "likelihood"))
        if config.trainer.logger in (None, True):
            logger = TensorBoardLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)
            kwargs["logger"] = logger
        if self.verb == "predict":
            callbacks.append(LayerFeatures(str(folder / "features"), config.ckpt_path))
        if self.verb == "test":
            callbacks.append(self.likelihood)
        if self.verb == "fit" and config.trainer.logger is not False:
            callbacks.append(LearningRateMonitor("step"))
        if self.verb == "fit" and not config.trainer.fast_dev_run:
            callbacks += [CatchUp(), Preemption()]
        self.trainer_defaults["callbacks"] = callbacks
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        given = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in given):
            kwargs["plugins"] = [*given, WholeCheckpoints()]
        trainer = super().instantiate_trainer(**kwargs)
        if self.verb == "fit":
            check_strategy(trainer)
        if self.verb == "fit" and not config.ckpt_path and not config.trainer.fast_dev_run:
            keep_earlier_run(folder, config)  # only now, when nothing about the trainer can be off any more
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
            records.read_scores(folder)  # what is off about the file is said before the work
        super()._run_subcommand(subcommand)
        if scored and self.trainer.is_global_zero:
            records.add_score(folder, self.score(subcommand, config))
        if subcommand == "fit" and stopping_guard(self.trainer):  # the same in all processes
            self.trainer.strategy.barrier("igpt.lost")  # torchrun and SLURM end the others when the first has ended
            raise SystemExit(0 if started_by_another(self.trainer) else LOST)

    def score(self, verb: str, config: Any) -> dict[str, Any]:
        """One entry of scores.json: the command, what was evaluated, on which data, and what came out."""
        entry = {
            "verb": verb,
            "command": self.save_config_kwargs["command"],
            "checkpoint": str(config.ckpt_path),
            "step": self.beginning.step,
            "model": records.plain_part(self.model.spec()),
            "data": self.datamodule.spec(),
            "precision": str(self.trainer.precision),
            "metrics": records.plain_metrics(self.trainer.callback_metrics),
        }
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
        UserError: see `igpt.hardware.compute_of`.
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


def run_dir(config: Any) -> Path:
    """The folder of a run: RUNS_DIR/NAME, the name being that of the last config file if none is given."""
    files = config.get("config") or []
    name = config.name or (Path(str(files[-1])).stem if files else "unnamed")
    return Path(config.runs_dir) / name
