"""What AR and BERT share: palette and pixel order on the device, the transformer, one loss step."""

import math
from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, read_checkpoint, spec_of
from igpt.data import ImageDataModule, rng_of
from igpt.model import (
    NATS_PER_BIT,
    FeatureOptions,
    Order,
    PixelTransformer,
    TransformerConfig,
    inverse_order,
    pixel_order,
    pooling,
    resize_positions,
)
from igpt.modules.base import TRAIN, Batch, PixelModule
from igpt.palette import Palette
from igpt.system import UserError, last_line
from igpt.training import apply_fsdp

GREY = 128  # shown where a picture is still to be completed


class GenerativeModule(PixelModule):
    """A transformer, a palette and an objective over pixels.

    Args:
        transformer: shape of the network, in configs also `{preset: L}` for that of iGPT-L; `n_positions` is the
            resolution squared, `vocab_size` the palette's size.
        palette: `.npy` file of colours; a checkpoint carries its own, so None is right when one is loaded.
        learning_rate: peak learning rate of Adam.
        betas: of Adam; the paper's are (0.9, 0.95).
        weight_decay: of Adam; the paper uses none.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch, as in the paper.
        compile: compile each block with `torch.compile`; the state dict keeps its keys.
        recompute: keep only the input of each block for the backward pass and compute the rest again (activation
            checkpointing): about a third more time, a fraction of the memory.
        order: raster, column, spiral or random: how the pixels form a sequence.
        start_from: checkpoint whose weights and palette to start with; at another resolution its position embeddings
            are interpolated.

    Raises:
        UserError: the palette is no palette, its size is not `transformer.vocab_size`, or `start_from` does not fit.
    """

    causal: bool
    mask_seed = 0  # of what the objective hides; BERT takes it as an argument
    pixel_order: Tensor

    def __init__(
        self,
        transformer: TransformerConfig,
        palette: str | None = None,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
        compile: bool = False,
        recompute: bool = False,
        order: Order = "raster",
        start_from: str | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, weight_decay, warmup_steps)
        config = TransformerConfig.of(transformer)
        if config.sos != self.causal:
            needed = str(self.causal).lower()
            raise UserError(
                f"transformer.sos must be {needed} for {type(self).__name__}; only AR has a start of sequence"
            )
        self.palette = open_palette(palette, config.vocab_size)
        self.palette_path = palette
        self.transformer = PixelTransformer(config)
        self.compile_blocks = compile
        self.recompute = self.transformer.recompute = recompute
        self.order: Order = order
        self.register_buffer("pixel_order", pixel_order(order, self.resolution))
        self.start_from = start_from
        if start_from is not None and Path(start_from).exists():
            start_with(self, start_from)

    @property
    def core(self) -> "GenerativeModule":
        """Itself."""
        return self

    @property
    def resolution(self) -> int:
        """Side of the images that this model knows."""
        return math.isqrt(self.transformer.config.n_positions)

    @property
    def n_layers(self) -> int:
        """L; features exist for layers 0 to L."""
        return self.transformer.config.n_layers

    @abstractmethod
    def draw_mask(self, tokens: Tensor, rng: torch.Generator) -> Tensor | None:
        """What is hidden from the network, bool `(B, T)`; None where the objective hides nothing."""

    @abstractmethod
    def score(self, normed: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """The loss in nats per pixel, from the final norm's output `(B, T, D)`."""

    @abstractmethod
    def surprise(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """How surprising each pixel is, float32 `(B, T)` in nats, of tokens `(B, T)`; both in sequence order.

        Args:
            seed: of the masks, where the objective masks.
        """

    @abstractmethod
    def draw_unknown(self, tokens: Tensor, unknown: Tensor, **settings: Any) -> Tensor:
        """Tokens `(B, T)` with the unknown ones, bool `(B, T)`, drawn anew; all in sequence order."""

    def loss(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """Mean loss in nats per pixel of tokens `(B, T)`; all randomness comes from `rng`."""
        masked = self.draw_mask(tokens, rng)
        return self.score(self.transformer.final(tokens, causal=self.causal, masked=masked), tokens, masked)

    def features(
        self,
        tokens: Tensor,
        layers: list[int],
        how: FeatureOptions = FeatureOptions(),
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Layer features `(len(layers), B, G * D)` of tokens `(B, T)`, G = grid squared (paper, section 2.4).

        Args:
            how: norm, pooling and masks.
            rng: draws the masks, where `how` asks for some.
        """
        pool = pooling(self.pixel_order, how.grid)
        pass_ = partial(self.transformer.features, causal=self.causal, normed=how.norm == "normed", pool=pool)
        if not how.masks:
            return pass_(tokens, layers)
        assert rng is not None
        under = [pass_(tokens, layers, masked=self.draw_mask(tokens, rng)) for _ in range(how.masks)]
        return torch.stack(under).mean(0)

    def fill(self, tokens: Tensor, unknown: Tensor, **settings: Any) -> Tensor:
        """Whole images `(B, T)` in **raster** order, from tokens in sequence order.

        Args:
            tokens: int64 `(B, T)`, on the module's device; those at unknown positions have no say.
            unknown: bool `(B, T)`: what is drawn anew.
            settings: temperature, top_k, top_p and seed; for BERT also steps. See `sampling.generate` and `infill`.
        """
        was_training = self.training
        self.eval()
        try:
            return self.to_raster(self.draw_unknown(tokens, unknown, **settings))
        finally:
            self.train(was_training)

    def draw_new(self, num: int, **settings: Any) -> Tensor:
        """`num` images from nothing, as tokens `(num, T)` in raster order; `settings` as for `fill`."""
        tokens = torch.zeros(num, self.resolution**2, dtype=torch.int64, device=self.device)
        return self.fill(tokens, torch.ones_like(tokens, dtype=torch.bool), **settings)

    def unknown_part(self, keep: float = 0.5, region: Tensor | None = None) -> Tensor:
        """What a completion draws, bool `(T,)` in sequence order: `region (R, R)`, or else all but the first pixels.

        Args:
            keep: share of the sequence that is kept; at least one row's worth is kept and one drawn.
        """
        if region is not None:
            return region.flatten().to(self.device)[self.pixel_order]
        kept = min(self.resolution - 1, max(1, round(keep * self.resolution))) * self.resolution
        return torch.arange(self.resolution**2, device=self.device) >= kept

    def complete(
        self, originals: Tensor, num: int = 1, keep: float = 0.5, region: Tensor | None = None, **settings: Any
    ) -> tuple[Tensor, Tensor]:
        """Draw a part of images anew, `num` times each (paper, figure 1); in raster order the lower part.

        Args:
            originals: uint8 `(B, 3, R, R)`.
            num: completions of each.
            keep: share of the sequence that is kept.
            region: bool `(R, R)`: what is drawn instead, anywhere in the image. AR draws it given the pixels before
                it alone, BERT given all around it.
            settings: as for `fill`.

        Returns:
            Pictures uint8 `(B, num + 2, 3, R, R)` (the kept part on grey, the completions, the original in palette
            colours) and tokens int64 `(B, num, T)` in raster order.
        """
        tokens, unknown = self.encode(originals), self.unknown_part(keep, region)
        repeated = tokens.repeat_interleave(num, 0)
        drawn = self.fill(repeated, unknown.expand_as(repeated), **settings)
        quantised = self.palette.decode(self.to_raster(tokens))
        shown = quantised.flatten(2).index_fill(2, self.pixel_order[unknown], GREY).view_as(quantised)
        completions = self.palette.decode(drawn).unflatten(0, (-1, num))
        return torch.cat([shown[:, None], completions, quantised[:, None]], dim=1), drawn.unflatten(0, (-1, num))

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to the sequence int64 `(B, T)`, on the device."""
        self.check_resolution(images.shape[-1])
        self.check_palette()
        tokens = self.palette.encode(images)
        return tokens if self.order == "raster" else tokens[:, self.pixel_order]

    def to_raster(self, sequence: Tensor) -> Tensor:
        """Tokens `(..., T)` from the model's order back to raster order."""
        return sequence if self.order == "raster" else sequence[..., inverse_order(self.pixel_order)]

    def check_ready(self) -> None:
        """Raise a UserError if there are no colours to encode with, or the weights to start from are not there."""
        if self.start_from is not None and not Path(self.start_from).exists():
            raise UserError(f"model.init_args.start_from: checkpoint {self.start_from} does not exist; train it first")
        self.check_palette()

    def check_palette(self) -> None:
        """Raise a UserError if there are no colours to encode with."""
        if not self.palette.has_table and self.palette.is_blank:
            name = self.palette_path or "palettes/NAME.npy"
            missing = f"palette file {name} does not exist" if self.palette_path else "no palette is given"
            raise UserError(
                f"model.init_args.palette: {missing}; build it with "
                f"'igpt palette --data DATA --colors {self.palette.k} --out {name}' (or 'make palette')"
            )

    def check_colors(self, data: ImageDataModule) -> None:
        """Raise a UserError if the images of `data` were made of another palette's colours, as token shards are."""
        made, own = data.palette_sha256, self.palette.sha256
        if made is not None and made != own:
            raise UserError(
                f"--data: the tokens of {type(data).__name__} are of palette {made[:12]}, but the model has palette "
                f"{own[:12]} ({self.palette_path or 'from its checkpoint'}); use one palette for both"
            )

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
        return self._step("train", batch, step_rng(self, batch_idx, len(batch[0])))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, over the validation split, with the same randomness every time."""
        return self._step("val", batch, self.evaluation_rng(batch_idx))

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """As training, over the test split, with the same randomness every time."""
        return self._step("test", batch, self.evaluation_rng(batch_idx))

    def _step(self, name: str, batch: Batch, rng: torch.Generator) -> Tensor:
        images = batch[0]
        loss = self.loss(self.encode(images), rng)
        self.log_loss(name, loss.detach(), len(images))
        return loss

    def log_loss(self, name: str, loss: Tensor, images: int) -> None:
        """Log the mean over so many images and over the processes, in nats and in bits per pixel."""
        if self.logs_now:
            self.log_means({f"{name}/loss": loss, f"{name}/bits_per_pixel": loss / NATS_PER_BIT}, images)

    def configure_model(self) -> None:
        """Compile the blocks and share out the weights, once, where asked for."""
        self.compile_once()
        if self.device_mesh is not None:
            apply_fsdp(self.transformer, self.device_mesh)

    def compile_once(self) -> None:
        """Compile each block, where asked for."""
        if self.compile_blocks:
            for block in self.transformer.blocks:
                block.compile()
            self.compile_blocks = False

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data; the colours travel in the state dict, not by file name."""
        known = {"transformer": self.transformer.config, "palette": None, "start_from": None}
        return spec_of(self, known | dict.fromkeys(("compile", "recompute"), False))


def step_rng(module: PixelModule, batch_idx: int, images: int) -> torch.Generator:
    """Randomness of one training step: a function of (seed, step, batch), so that resuming repeats it.

    Processes share one stream as they share the global batch, each beginning with its own images: what an image's mask
    is does not depend on their number.

    Args:
        images: in the batch of each process.
    """
    core = module.core
    rng = rng_of(TRAIN, core.mask_seed, module.global_step, batch_idx, 0)
    if not core.causal:
        torch.rand(module.global_rank * images * core.resolution**2, generator=rng)  # masks of the processes before
    return rng


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


def start_with(module: GenerativeModule, path: str) -> None:
    """Load weights and palette of another run; position embeddings are interpolated to another resolution.

    Raises:
        UserError: the checkpoint cannot be read, or is of another shape or kind.
    """
    content = read_checkpoint(path)
    kind = content[CHECKPOINT_KEY]["model"]["class_path"].rpartition(".")[2]
    try:
        state = {name.removeprefix("generative."): value for name, value in content["state_dict"].items()}
        if ("transformer.sos" in state) != module.causal:
            raise ValueError(f"{type(module).__name__} takes weights of its own kind; only AR has a start of sequence")
        state = {name: value for name, value in state.items() if name in module.state_dict()}
        check_finite(state.items(), f"start_from: checkpoint {path}")
        positions, order = state["transformer.wpe"], state.pop("pixel_order")
        new_order = pixel_order(module.order, module.resolution)
        if len(positions) == len(new_order):
            state["transformer.wpe"] = positions[inverse_order(order)][new_order]
        else:
            state["transformer.wpe"] = resize_positions(positions, order, new_order)
            rank_zero_info(
                f"position embeddings of {path} interpolated from {len(positions)} to {module.resolution**2}"
            )
        state["pixel_order"] = new_order
        module.load_state_dict(state)
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = last_line(error)
        raise UserError(f"start_from: checkpoint {path} ({kind}) does not fit this model: {reason}") from error
