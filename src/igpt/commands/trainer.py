"""fit, validate, test, predict: Lightning's own command line, with igpt's defaults and one-line errors."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from igpt.callbacks import ImagesPerSecond, LayerFeatures, SampleGrid, StepCheckpoint
from igpt.checkpoint import CHECKPOINT_KEY, read_checkpoint
from igpt.commands.parsing import CommandParser
from igpt.data import ImageDataModule
from igpt.errors import UserError, UserErrors
from igpt.files import atomic_path
from igpt.modules import PixelModule
from igpt.plugins import load_plugins
from igpt.spec import plain

NOT_COMPARED = {"palette", "compile", "transformer", "start_from", "pretrained", "generative"}
KEYWORDS = ("last", "best", "hpc", "registry")


def run(verb: str, arguments: list[str], cli: "type[TrainerCLI] | None" = None) -> "TrainerCLI":
    """Run one of Lightning's four verbs."""
    load_plugins()
    TrainerCLI.verb = verb
    return (cli or TrainerCLI)(
        PixelModule,
        ImageDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=CommandParser,
        parser_kwargs={"prog": "igpt", verb: {"prog": f"igpt {verb}", "usage": f"igpt {verb} [options]"}},
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=[verb, *arguments],
    )


class SaveConfig(SaveConfigCallback):
    """Writes `runs/NAME/config.yaml`: every option of the training, also those left at their defaults.

    A low-data run also gets `subset.json`, the indices of its training images.
    """

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it whole or not at all."""
        if trainer.log_dir is None:
            return
        with atomic_path(Path(trainer.log_dir) / "config.yaml") as path:
            path.write_text(self.parser.dump(self.config))
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if data.split.labels_per_class is not None:
            with atomic_path(Path(trainer.log_dir) / "subset.json") as path:
                path.write_text(json.dumps({"train_indices": data.train_indices}) + "\n")


class TrainerCLI(LightningCLI):
    """One verb of LightningCLI; building only its parser keeps the start quick."""

    verb = "fit"

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the verb that was asked for."""
        return {TrainerCLI.verb: LightningCLI.subcommands()[TrainerCLI.verb]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what the launcher hands over (Lightning's own method warns that sys.argv is not empty)."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name, and the callbacks that every run has."""
        parser.add_argument("--name", type=str | None, default=None, help="run's name; the config's name if left out")
        parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
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
        if path is not None and path not in KEYWORDS:
            compare_with_checkpoint(config.model, path)
        config.weights_only = True

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make `runs/NAME` the place of everything that this run writes."""
        config = self.config[self.verb]
        preflight(self.model, self.datamodule, fresh=config.ckpt_path is None)
        if self.verb == "fit":
            check_recipe(self.datamodule, config.trainer)
        callbacks: list[Any] = [ImagesPerSecond()]
        if config.trainer.logger in (None, True):
            run_dir = Path(config.runs_dir) / (config.name or config_name(config) or "unnamed")
            if self.verb == "fit" and not config.ckpt_path and not config.trainer.fast_dev_run:
                keep_earlier_run(run_dir)
            logger = TensorBoardLogger(run_dir.parent, name=run_dir.name, version="", default_hp_metric=False)
            kwargs["logger"] = logger
            if self.verb == "predict":
                callbacks.append(LayerFeatures(out=str(run_dir / "features")))
        if self.verb == "fit" and config.trainer.logger is not False:
            callbacks.append(LearningRateMonitor("step"))
        self.trainer_defaults["callbacks"] = callbacks
        if self.verb != "fit":
            self.save_config_callback = None  # the config of the training stays
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs


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


def check_recipe(data: ImageDataModule, trainer: Any) -> None:
    """Look for settings that cannot train, before the run's folder is made.

    Raises:
        UserError: no number of steps is set, or a batch is larger than the training split.
    """
    if not trainer.fast_dev_run and trainer.max_steps < 1:
        raise UserError("--trainer.max_steps is not set; the cosine schedule ends there, so give a number of steps")
    data.train_dataloader()


def is_main_process() -> bool:
    """Whether this is the process that writes, known before any strategy is set up."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def compare_with_checkpoint(model: Any, path: str) -> None:
    """Refuse a checkpoint whose network differs from the config's; name other differences in a warning.

    Raises:
        UserError: the checkpoint cannot be read, or holds another network.
    """
    header = read_checkpoint(path)[CHECKPOINT_KEY]["model"]
    stored, given = header["init_args"], model.init_args.as_dict()
    if header["class_path"].rpartition(".")[2] != model.class_path.rpartition(".")[2]:
        raise UserError(f"--ckpt_path {path}: the checkpoint holds {header['class_path']}, the config another class")

    def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        names = sorted(set(old) & set(new) - NOT_COMPARED)
        return [f"{name} {old[name]} (now {new[name]})" for name in names if plain(old[name]) != plain(new[name])]

    network = differences(stored.get("transformer", {}), given.get("transformer") or {})
    if network:
        raise UserError(f"--ckpt_path {path}: the checkpoint has transformer {', '.join(network)}; use its config")
    recipe = differences(stored, given)
    if recipe:
        rank_zero_warn(f"--ckpt_path {path} was trained with {', '.join(recipe)}; a resumed optimizer keeps its own")


def config_name(config: Any) -> str | None:
    """The last config file's name without folder and suffix."""
    files = config.get("config") or []
    return Path(str(files[-1])).stem if files else None


def keep_earlier_run(run_dir: Path) -> None:
    """Move an earlier run of the same name aside, so that starting anew never loses one."""
    if not run_dir.is_dir() or not is_main_process():
        return
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(aside)
    print(
        f"{run_dir} held an earlier run, which is now {aside}; to go on with a run, use --ckpt_path last",
        file=sys.stderr,
    )
