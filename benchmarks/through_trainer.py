"""`igpt fit` as one side of a benchmark: the command itself, stopped between rounds."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from harness import Ask, Tell, Work
from networks import SIZES

from igpt.data import ImageDataModule, LabelledImages, TensorImages
from igpt.model import TransformerConfig
from igpt.palette import Palette
from igpt.runs import trainer as command

FOREVER = 1_000_000  # steps
IMAGES = 4096


def colors_of(count: int) -> torch.Tensor:
    """Different colours uint8 `(count, 3)`, so that every pixel of a random image is one of the palette's."""
    codes = torch.randperm(1 << 24, generator=torch.Generator().manual_seed(0))[:count]
    return torch.stack([codes >> 16, codes >> 8 & 255, codes & 255], dim=1).to(torch.uint8)


class RandomImages(ImageDataModule):
    """Images in memory, every pixel a random one of `colors` colours; one class."""

    num_classes = 1
    class_names = ("random",)

    def __init__(self, resolution: int, batch_size: int, colors: int, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(resolution, batch_size, num_workers, seed)
        self.colors = colors

    def load(self) -> Mapping[str, LabelledImages]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (IMAGES, self.resolution, self.resolution)
        images = colors_of(self.colors)[torch.randint(self.colors, shape, generator=generator)].permute(0, 3, 1, 2)
        images, labels = images.contiguous(), torch.zeros(IMAGES, dtype=torch.int64)
        return {"train": TensorImages(images, labels), "test": TensorImages(images[:64], labels[:64])}


class EnoughError(Exception):
    """No further round is wanted; what a run does at its end, from a last validation on, is no part of a step."""


class Turns(pl.Callback):
    """Waits for the parent before every `steps` steps, and tells it how long they took, data and logging included."""

    ask: ClassVar[Ask]
    tell: ClassVar[Tell]

    def __init__(self, steps: int, batch: int) -> None:
        self.steps, self.batch = steps, batch
        self.done, self.started = 0, 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """A round ends where the next would begin."""
        if self.done == self.steps:
            Turns.tell(time.perf_counter() - self.started, self.steps * self.batch)
        if self.done in (0, self.steps):
            if not Turns.ask():
                raise EnoughError
            self.done, self.started = 0, time.perf_counter()
        self.done += 1


def trainer_work(size: str, steps: int, device: str) -> Work:
    """The command at one of the sizes that are compared."""
    return fit_work(*SIZES[size], steps, device)


def fit_work(config: TransformerConfig, batch: int, steps: int, device: str, compiled: bool = True) -> Work:
    """The command, its runs in a folder that goes away."""

    def drive(ask: Ask, tell: Tell) -> None:
        Turns.ask, Turns.tell = staticmethod(ask), staticmethod(tell)
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            palette = Path(folder) / "palette.npy"
            Palette(colors_of(config.vocab_size) / 127.5 - 1).save(palette)
            os.environ["IGPT_ALLOW_IMPORTS"] = __name__  # its data module and callback
            sys.stdout = sys.stderr = nowhere  # the bar of a run has its price, but no place here
            try:
                command.run("fit", command_line(config, batch, steps, device, folder, palette, compiled))
            except EnoughError:
                pass
            finally:
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    return Work(drive=drive)


def command_line(
    config: TransformerConfig, batch: int, steps: int, device: str, folder: str, palette: Path, compiled: bool
) -> list[str]:
    """Options of `igpt fit`; no validation falls into a round."""
    options: dict[str, Any] = {
        "model": "igpt.modules.Autoregressive",
        "model.init_args.transformer": json.dumps(config.to_dict()),
        "model.init_args.palette": palette,
        "model.init_args.compile": str(compiled).lower(),
        "data": f"{__name__}.RandomImages",
        "data.init_args.resolution": round(config.n_positions**0.5),
        "data.init_args.batch_size": batch,
        "data.init_args.colors": config.vocab_size,
        "trainer.callbacks": f"{__name__}.Turns",
        "trainer.callbacks.steps": steps,
        "trainer.callbacks.batch": batch,
        "trainer.max_steps": FOREVER,
        "trainer.precision": "bf16-mixed",
        "trainer.accelerator": device,
        "trainer.devices": 1,
        "trainer.num_sanity_val_steps": 0,
        "trainer.val_check_interval": FOREVER,
        "trainer.check_val_every_n_epoch": "null",
        "runs_dir": folder,
        "name": "run",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
