"""What AR and BERT give once they are trained: features of images, new pictures and completed ones."""

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.data import ImageDataModule, Resolution
from igpt.model import (
    STRIDES,
    FeatureOptions,
    Order,
    PixelTransformer,
    SamplingOptions,
    TransformerConfig,
    inverse_order,
    pooling,
)
from igpt.palette import CellColors, ColorCounts, Palette, VQTokens, cells_of
from igpt.system import Progress, UserError

GREY = 128  # shown where a picture is still to be completed


class PixelModel(pl.LightningModule, ABC):
    """Palette, pixel order and transformer on the device: tokens to features or to pictures.

    Tokens `(B, T)` are in the order of the sequence unless raster order is said.
    """

    causal: bool
    mask_seed = 0  # of what the objective hides; BERT takes it as an argument
    has_palette = True  # a byte model has none, and no attribute `palette`
    palette: Palette | VQTokens
    palette_path: str | None
    config: TransformerConfig  # of pictures: `n_positions` tokens, of pixels in `vocab_size` colours or of VQ
    transformer: PixelTransformer
    order: Order
    pixel_order: Tensor
    compile_blocks: bool
    start_from: str | None
    augment: list[str] | None = None  # transformations of the training images that the network is told of
    classes: int | None = None  # that the network is told of
    began: dict[str, Any] | None = None  # `checkpoint` and `step` whose weights it began with

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tokens: of the images that this model knows, but with VQ tokens."""
        return self.config.shape

    @property
    def stride(self) -> int:
        """Pixels of a token's side: 1, but of VQ tokens."""
        return self.palette.stride if self.has_palette else 1

    @property
    def predicts(self) -> str:
        """What its likelihoods are of."""
        return "VQ tokens" if self.stride > 1 else "palette tokens"

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of the images that this model knows."""
        rows, columns = self.shape
        return rows * self.stride, columns * self.stride

    @property
    def resolution(self) -> Resolution:
        """Side of the images that this model knows; their rows and columns where they are not square."""
        rows, columns = self.pixels
        return rows if rows == columns else (rows, columns)

    @property
    def n_layers(self) -> int:
        """L; features exist for layers 0 to L."""
        return self.transformer.config.n_layers

    def check_features(self, how: FeatureOptions) -> None:
        """Raise a UserError for features that this model does not have."""
        how.check(self.shape, self.causal)

    def widths(self, layers: list[int], how: FeatureOptions) -> list[int]:
        """Numbers in the feature vector of each of the layers."""
        return [self.transformer.config.d_model * how.grid**2] * len(layers)

    def token_shape(self, layer: int) -> tuple[int, int]:
        """T and D of the tokens of a layer; all layers are alike."""
        return self.transformer.config.n_positions, self.transformer.config.d_model

    @abstractmethod
    def at_resolution(self, resolution: Resolution) -> "PixelModel":
        """The same model for pictures of another shape, on its device.

        Raises:
            UserError: it does not know positions by their offsets.
        """

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to the sequence int64 `(B, T)`, on the device."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens `(B, T)` in raster order to images uint8 `(B, 3, R, R)`."""
        return self.palette.decode(tokens, self.shape)

    @property
    def draws(self) -> int:
        """Random numbers that a training step draws for each image."""
        return 0 if self.causal else len(self.pixel_order)

    @abstractmethod
    def loss(self, tokens: Tensor, rng: torch.Generator, conditions: Tensor | None = None) -> Tensor:
        """Mean loss in nats per pixel of tokens `(B, T)`; all randomness comes from `rng`.

        Args:
            conditions: what AR's network is told of each image (`PixelTransformer.start`).
        """

    def draw_mask(self, tokens: Tensor, rng: torch.Generator) -> Tensor | None:
        """What is hidden from the network, bool `(B, T)`; None hides nothing."""
        return None

    @abstractmethod
    def surprise(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """How surprising each pixel is, float32 `(B, T)` in nats, of tokens `(B, T)`; both in sequence order.

        Args:
            seed: of the masks, where the objective masks.
        """

    @abstractmethod
    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """Sample the unknown, bool `(B, T)`, of tokens `(B, T)`; all in sequence order."""

    def features(
        self,
        tokens: Tensor,
        layers: list[int],
        how: FeatureOptions = FeatureOptions(),
        rng: torch.Generator | None = None,
        pooled: bool = True,
    ) -> Tensor:
        """Layer features `(len(layers), B, G * D)` of tokens `(B, T)`, G = grid squared (paper, section 2.4).

        Args:
            how: norm, pooling and masks.
            rng: draws the masks, where `how` asks for some.
            pooled: False gives the features of every token, `(len(layers), B, T, D)`.
        """
        normed, pool = how.norm == "normed", self.pooling(how.grid)
        pass_ = partial(self.transformer.features, causal=self.causal, normed=normed, pool=pool, pooled=pooled)
        if not how.masks:
            return pass_(tokens, layers)
        assert rng is not None
        under = [pass_(tokens, layers, masked=self.draw_mask(tokens, rng)) for _ in range(how.masks)]
        return torch.stack(under).mean(0)

    def pooling(self, grid: int) -> Tensor | None:
        """Averaging weights of each cell over the sequence (`igpt.model.pooling`)."""
        return pooling(self.pixel_order, grid, self.shape)

    def fill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """Whole images `(B, T)` in **raster** order, from tokens in sequence order.

        Args:
            tokens: int64 `(B, T)`, on the module's device; those at unknown positions have no say.
            unknown: bool `(B, T)`: what is sampled.
        """
        was_training = self.training
        self.eval()
        try:
            return self.to_raster(self.infill(tokens, unknown, options))
        finally:
            self.train(was_training)

    def sample(self, num: int, options: SamplingOptions = SamplingOptions()) -> Tensor:
        """`num` new images as tokens `(num, T)` in raster order."""
        tokens = torch.zeros(num, self.transformer.config.n_positions, dtype=torch.int64, device=self.device)
        unknown = torch.ones(num, len(self.pixel_order), dtype=torch.bool, device=self.device)
        return self.fill(tokens, unknown, options)

    def unknown_part(self, keep: float = 0.5, region: Tensor | None = None) -> Tensor:
        """What a completion draws, bool `(T,)` in sequence order: `region (R, R)`, or else all but the first pixels.

        Args:
            keep: share of the sequence that is kept, in whole rows (of a slice, where the order has slices); at least
                one is kept and one drawn. 1 / s^2 of subscale keeps the small picture.
        """
        if region is not None and self.stride > 1:
            raise UserError("--mask: VQ tokens stand for many pixels each, and no region is drawn of them; use --keep")
        if region is not None:
            return region.flatten().to(self.device)[self.pixel_order]
        row = self.shape[1] // STRIDES.get(self.order, 1)
        rows = len(self.pixel_order) // row
        kept = min(rows - 1, max(1, round(keep * rows))) * row
        return torch.arange(len(self.pixel_order), device=self.device) >= kept

    def complete(
        self,
        originals: Tensor,
        num: int = 1,
        keep: float = 0.5,
        region: Tensor | None = None,
        options: SamplingOptions = SamplingOptions(),
    ) -> tuple[Tensor, Tensor]:
        """Draw a part of images anew, `num` times each (paper, figure 1); in raster order the lower part.

        Args:
            originals: uint8 `(B, 3, R, R)`.
            num: completions of each.
            keep: share of the sequence that is kept.
            region: bool `(R, R)`: what is drawn instead, anywhere in the image. AR draws it given the pixels before
                it alone, BERT given all around it.

        Returns:
            Pictures uint8 `(B, num + 2, 3, R, R)` (the kept part on grey, the completions, the original in palette
            colours) and tokens int64 `(B, num, T)` in raster order.
        """
        tokens, unknown = self.encode(originals), self.unknown_part(keep, region)
        repeated = tokens.repeat_interleave(num, 0)
        drawn = self.fill(repeated, unknown.expand(len(repeated), -1), options)
        quantised = self.decode(self.to_raster(tokens))
        hidden = torch.zeros_like(unknown).index_fill(0, self.pixel_order[unknown], True).unflatten(0, self.shape)
        shown = quantised.masked_fill(self.by_pixel(hidden), GREY)
        completions = self.decode(drawn).unflatten(0, (-1, num))
        return torch.cat([shown[:, None], completions, quantised[:, None]], dim=1), drawn.unflatten(0, (-1, num))

    def by_pixel(self, values: Tensor) -> Tensor:
        """Values of tokens `(..., rows, columns)` for each of their pixels."""
        return values.repeat_interleave(self.stride, -2).repeat_interleave(self.stride, -1)

    def to_raster(self, sequence: Tensor) -> Tensor:
        """Tokens `(..., T)` from the model's order back to raster order."""
        return sequence if self.order == "raster" else sequence[..., inverse_order(self.pixel_order)]

    def fit_cells(self, data: ImageDataModule) -> CellColors:
        """How RGB colours lie in the cells of the palette: those of all training and validation pixels are counted."""
        train, val = ColorCounts(), ColorCounts()
        count = data.size("train") + data.size("val")
        with Progress(count, "images: colours counted", quiet=True) as progress:
            for counts, loader in ((train, data.loader("train")), (val, data.loader("val"))):
                for images, _ in loader:
                    counts.add(images)
                    progress.add(len(images))
        assert isinstance(self.palette, Palette)
        return cells_of(self.palette, train, val)

    def check_ready(self) -> None:
        """Raise a UserError if there are no colours to encode with, or the weights to start from are not there."""
        if self.start_from is not None and not Path(self.start_from).exists():
            raise UserError(f"model.init_args.start_from: checkpoint {self.start_from} does not exist; train it first")
        self.check_palette()

    def check_palette(self) -> None:
        """Raise a UserError if there are no colours to encode with."""
        if self.has_palette and not self.palette.has_table and self.palette.is_blank:
            name = self.palette_path or "palettes/NAME.npy"
            how = "--kind vq " if self.stride > 1 else ""
            missing = f"palette file {name} does not exist" if self.palette_path else "no palette is given"
            raise UserError(
                f"model.init_args.palette: {missing}; build it with "
                f"'igpt palette {how}--data DATA --colors {self.palette.k} --out {name}' (or 'make palette')"
            )

    def check_colors(self, data: ImageDataModule) -> None:
        """Raise a UserError if the images of `data` were made of another palette's colours, as token shards are."""
        made, own = data.palette_sha256, self.palette.sha256
        if made is not None and made != own:
            raise UserError(
                f"--data: the tokens of {type(data).__name__} are of palette {made[:12]}, but the model has palette "
                f"{own[:12]} ({self.palette_path or 'from its checkpoint'}); use one palette for both"
            )

    def check_resolution(self, shape: tuple[int, int]) -> None:
        """Raise a UserError if images of so many rows and columns are not what the network was shaped for."""
        if self.stride > 1 and shape != self.pixels:
            (rows, columns), own = shape, "x".join(map(str, self.pixels))
            raise UserError(
                f"data.init_args.resolution: the images are {rows}x{columns} but the model's VQ tokens are of {own} "
                f"pixels, {self.config.n_positions} of {self.stride}x{self.stride} each; set one to match"
            )
        if self.stride > 1:
            return
        n_positions, (rows, columns) = self.config.n_positions, shape
        if rows * columns != n_positions or shape != self.shape:
            known = "x".join(map(str, self.shape))
            mend = f"set transformer.grid [{rows}, {columns}]" if rows * columns == n_positions else "set one to match"
            raise UserError(
                f"data.init_args.resolution: the images are {rows}x{columns} but the model has "
                f"transformer.n_positions {n_positions} ({known}); {mend}"
            )
