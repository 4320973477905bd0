"""What AR, BERT and joint training share: palette, optimizer, schedule, logging and the checkpoint's content."""

import math
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.data import ImageDataModule
from igpt.errors import UserError
from igpt.objectives import NATS_PER_BIT
from igpt.palette import Palette
from igpt.schedule import warmup_cosine
from igpt.spec import spec_of
from igpt.transformer import PixelTransformer, TransformerConfig

CHECKPOINT_KEY = "igpt"
Batch = tuple[Tensor, Tensor]


class PixelModule(pl.LightningModule, ABC):
    """A transformer, a palette and a recipe; a subclass says what the loss is and how features are taken.

    Args:
        transformer: shape of the network; `n_positions` is the resolution squared, `vocab_size` the palette's size.
        palette: `.npy` file of colours; a checkpoint carries its own, so None is right when one is loaded.
        learning_rate: peak learning rate of Adam.
        betas: of Adam; the paper's are (0.9, 0.95).
        weight_decay: of Adam; the paper uses none.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch, as in the paper.
        compile: compile each block with `torch.compile`; the state dict keeps its keys.

    Raises:
        UserError: the palette is no palette, or its size is not `transformer.vocab_size`.

    """

    def __init__(
        self,
        transformer: TransformerConfig,
        palette: str | None = None,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        config = TransformerConfig.of(transformer)
        self.palette = open_palette(palette, config.vocab_size)
        self.palette_path = palette
        self.transformer = PixelTransformer(config)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.betas: tuple[float, float] = (betas[0], betas[1])
        self.warmup_steps = warmup_steps
        self.compile_blocks = compile

    @abstractmethod
    def loss(self, tokens: Tensor) -> Tensor:
        """Mean loss in nats per pixel of tokens `(B, T)`, on the current mode's randomness."""

    @abstractmethod
    def features(self, tokens: Tensor, layers: list[int]) -> Tensor:
        """Layer features `(len(layers), B, D)` of tokens `(B, T)`."""

    @property
    def resolution(self) -> int:
        """Side of the images that this model knows."""
        return math.isqrt(self.transformer.config.n_positions)

    @property
    def n_layers(self) -> int:
        """L; features exist for layers 0 to L."""
        return self.transformer.config.n_layers

    def check_ready(self) -> None:
        """Raise a UserError if there are no colours to encode with."""
        if self.palette.is_blank:
            name = self.palette_path or "palettes/NAME.npy"
            missing = f"palette file {name} does not exist" if self.palette_path else "no palette is given"
            raise UserError(
                f"model.init_args.palette: {missing}; build it with "
                f"'igpt palette --data DATA --colors {self.palette.k} --out {name}' (or 'make palette')"
            )

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to tokens int64 `(B, T)`, on the device."""
        self.check_ready()
        self.check_resolution(images.shape[-1])
        return self.palette.encode(images)

    def check_resolution(self, side: int) -> None:
        """Raise a UserError if images of `side` pixels are not what the network was shaped for."""
        n_positions = self.transformer.config.n_positions
        if side * side != n_positions:
            raise UserError(
                f"data.init_args.resolution: the images are {side}x{side} but the model has "
                f"transformer.n_positions {n_positions} ({self.resolution}x{self.resolution}); set one to match"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss, logged in nats and in bits per pixel."""
        return self._logged_loss("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, averaged over the validation split."""
        return self._logged_loss("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, averaged over the test split."""
        return self._logged_loss("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features of all layers `(L + 1, B, D)` and labels `(B,)`; the LayerFeatures callback asks for fewer."""
        images, labels = batch
        layers = getattr(self, "feature_layers", None) or list(range(self.n_layers + 1))
        return {"features": self.features(self.encode(images), layers), "labels": labels}

    def _logged_loss(self, name: str, batch: Batch) -> Tensor:
        images = batch[0]
        loss = self.loss(self.encode(images))
        values = {f"{name}/loss": loss.detach(), f"{name}/bits_per_pixel": loss.detach() / NATS_PER_BIT}
        self.log_dict(values, batch_size=len(images), prog_bar=True, sync_dist=name != "train")
        return loss

    def configure_model(self) -> None:
        """Compile the blocks once, where asked for."""
        if self.compile_blocks:
            for block in self.transformer.blocks:
                block.compile()
            self.compile_blocks = False

    def configure_optimizers(self) -> Any:
        """Adam with warm-up over one epoch and a cosine to zero at `max_steps` (paper, section 3.4)."""
        trainer = self.trainer
        if trainer.max_steps < 1:
            raise UserError("trainer.max_steps is not set; the cosine schedule ends there, so give a number of steps")
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        warmup = self.warmup_steps
        if warmup is None:
            warmup = data.steps_per_epoch(trainer.world_size, trainer.accumulate_grad_batches)
        optimizer = torch.optim.Adam(
            self.parameters(), lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )
        share = partial(warmup_cosine, warmup_steps=warmup, max_steps=trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data; the colours travel in the state dict, not by file name."""
        known = {"transformer": self.transformer.config, "palette": None, "compile": False}
        return spec_of(self, known)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `igpt.load` needs: this module and its data, as plain data."""
        data = getattr(self._trainer, "datamodule", None)
        checkpoint[CHECKPOINT_KEY] = {
            "format": 1,
            "model": self.spec(),
            "data": data.spec() if isinstance(data, ImageDataModule) else None,
        }


def open_palette(path: str | None, vocab_size: int) -> Palette:
    """The palette of a file; blank where no file is named, or none is there yet (checkpoints bring their own)."""
    if path is None or not Path(path).exists():
        return Palette.blank(vocab_size)
    palette = Palette.load(path)
    if palette.k != vocab_size:
        raise UserError(
            f"palette file {path} has {palette.k} colours but transformer.vocab_size is {vocab_size}; make them equal"
        )
    return palette
