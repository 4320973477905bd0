"""A FeatureSource as the probes see a network: layers by number, their features side by side in one tensor."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.checkpoints import build, weights_sha256
from igpt.data import ImageDataModule, shape_of
from igpt.families.contract import FeatureSource, checked_features
from igpt.model import FeatureOptions
from igpt.system import UserError, allowed_imports, packages


class ProbedSource(pl.LightningModule):
    """The part of a `PixelModule` that probes use, by a source.

    Call `check_resolution` first: the widths of layers are measured on one grey image.
    """

    def __init__(self, source: FeatureSource) -> None:
        super().__init__()
        self.source = source
        self.measured: list[int] = []
        self.token_shapes: list[tuple[int, int]] = []  # of a source that has tokens
        self.feature_layers: list[int] | None = None
        self.feature_options = FeatureOptions()

    @property
    def core(self) -> "ProbedSource":
        """Itself."""
        return self

    @property
    def n_layers(self) -> int:
        """L; features exist for layers 0 to L."""
        return len(self.source.layers) - 1

    def spec(self) -> dict[str, Any]:
        """The source's."""
        return self.source.spec()

    def check_features(self, how: FeatureOptions) -> None:
        """Raise a UserError for ways of taking features that are a transformer's alone."""
        for name, value in how.to_dict().items():
            if value != FeatureOptions().to_dict()[name]:
                raise UserError(f"--{name} {value} is for igpt's own networks; leave it out for a source")

    def check_resolution(self, shape: tuple[int, int]) -> None:
        """Measure the layers on an image of so many rows and columns; a UserError where they are not what is taken."""
        known = self.source.resolution
        if known is not None and shape_of(known) != shape:
            sides, given = ("x".join(map(str, sides)) for sides in (shape_of(known), shape))
            raise UserError(f"--data: the images are {given}, but {self.name} takes {sides}; set --data.resolution")
        grey, layers = torch.full((1, 3, *shape), 128, dtype=torch.uint8, device=self.device), self.source.layers
        try:
            with torch.no_grad():
                found = checked_features(self.source.eval(), grey, layers)
                tokens = checked_features(self.source, grey, layers, "tokens") if self.has_tokens else []
        except (
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
        ) as error:  # UserErrors are none of these
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"--source: {self.name} fails on images of {shape[0]}x{shape[1]}: {reason}") from error
        self.measured = [part.shape[1] for part in found]
        self.token_shapes = [(part.shape[1], part.shape[2]) for part in tokens]

    def check_colors(self, data: ImageDataModule) -> None:
        """Raise a UserError unless the data are pictures."""
        data.check_pictures()

    @property
    def has_tokens(self) -> bool:
        """Whether its layers' positions can be had one by one."""
        return self.source.offers("tokens")

    def token_shape(self, layer: int) -> tuple[int, int]:
        """T and D of the tokens of a layer; `check_resolution` has measured them."""
        return self.token_shapes[layer]

    @property
    def name(self) -> str:
        """Of its class."""
        return type(self.source).__name__

    def widths(self, layers: list[int], how: FeatureOptions) -> list[int]:
        """D of each of the layers."""
        return [self.measured[layer] for layer in layers]

    def encode(self, images: Tensor) -> Tensor:
        """The images: a source takes them as they are."""
        return images

    def features(
        self,
        images: Tensor,
        layers: list[int],
        how: FeatureOptions = FeatureOptions(),
        rng: torch.Generator | None = None,
        pooled: bool = True,
    ) -> Tensor:
        """Features `(len(layers), B, W)`, W being the widest layer's; narrower ones end in zeros.

        `pooled=False` gives tokens, `(len(layers), B, T, D)`, of layers that are alike in both.
        """
        names = [self.source.layers[layer] for layer in layers]
        if not pooled:
            return torch.stack(checked_features(self.source, images, names, "tokens"))
        found = checked_features(self.source, images, names)
        width = max(part.shape[1] for part in found)
        return torch.stack([F.pad(part.float(), (0, width - part.shape[1])) for part in found])

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features `(L + 1, B, W)` and labels `(B,)`; the LayerFeatures callback asks for some."""
        images, labels = batch
        layers = self.feature_layers or list(range(self.n_layers + 1))
        return {"features": self.features(images, layers), "labels": labels}


@dataclass(frozen=True)
class LoadedSource:
    """A source that has been opened, with what `igpt.modules.Loaded` says of a checkpoint.

    Args:
        module: frozen.
        path: of a checkpoint, or the name that it was opened by.
        file_sha256: of a checkpoint's file; of others description and weights are counted.
        step: optimizer steps at which it was saved, where it is known.
        data_spec: the data it was trained on, as plain data, where they are known.
    """

    module: ProbedSource
    path: Path
    file_sha256: str | None = None
    step: int = 0
    data_spec: dict[str, Any] | None = None

    @cached_property
    def sha256(self) -> str:
        """What tells its features from those of another source."""
        return self.file_sha256 or weights_sha256(self.module.spec(), self.module.source.state_dict())

    def data(self) -> ImageDataModule:
        """The data module that it was trained on; a UserError where none is known."""
        if self.data_spec is None:
            raise UserError(f"--source {self.path} does not say what it was trained on; name the data with --data")
        data: ImageDataModule = build(self.data_spec, ImageDataModule, packages() | allowed_imports())
        return data
