"""Collects layer features during `trainer.predict`: one pass over the images for all asked layers."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from igpt.data import SPLITS
from igpt.errors import UserError
from igpt.files import atomic_path
from igpt.modules.base import PixelModule
from igpt.transformer import check_layers


class LayerFeatures(pl.Callback):
    """Mean-pooled normed features `(layers, N, D)` and labels `(N,)` of every split (paper, section 2.4).

    Args:
        layers: which of 0..L; None is all.
        out: folder for `features_SPLIT.npz` (arrays `features`, `labels`, `layers`); None keeps them in memory only.
    """

    def __init__(self, layers: list[int] | None = None, out: str | None = None) -> None:
        self.layers = layers
        self.out = out
        self.found: list[list[dict[str, Tensor]]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell the module which layers to compute."""
        if not isinstance(pl_module, PixelModule):
            raise UserError(f"LayerFeatures needs a model of igpt, not {type(pl_module).__name__}")
        if stage == "predict" and trainer.world_size > 1:
            raise UserError("--trainer.devices: features are collected in one process; use 1")
        if self.layers is None:
            self.layers = list(range(pl_module.core.n_layers + 1))
        check_layers(self.layers, pl_module.core.n_layers)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self.found = []
        assert isinstance(pl_module, PixelModule)
        pl_module.feature_layers = self.layers

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep one batch's features, in float32 on the CPU."""
        while len(self.found) <= dataloader_idx:
            self.found.append([])
        self.found[dataloader_idx].append(
            {"features": outputs["features"].float().cpu(), "labels": outputs["labels"].cpu()}
        )

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the files, where asked for."""
        if self.out is None:
            return
        for index in range(len(self.found)):
            features, labels = self.split(index)
            with atomic_path(Path(self.out) / f"features_{SPLITS[index]}.npz") as path:
                np.savez(path, features=features.numpy(), labels=labels.numpy(), layers=np.array(self.layers))

    def split(self, index: int) -> tuple[Tensor, Tensor]:
        """Features float32 `(layers, N, D)` and labels `(N,)` of the loader `index`; 0, 1, 2 are train, val, test."""
        parts = self.found[index]
        return torch.cat([p["features"] for p in parts], dim=1), torch.cat([p["labels"] for p in parts])
