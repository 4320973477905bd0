"""What AR and BERT share: palette and pixel order on the device, the transformer, one loss step."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, read_checkpoint, spec_of
from igpt.data import rng_of
from igpt.model import (
    NATS_PER_BIT,
    Order,
    PixelTransformer,
    TransformerConfig,
    inverse_order,
    pixel_loss,
    pixel_order,
    resize_positions,
)
from igpt.modules.base import TRAIN, Batch, PixelModule, step_of
from igpt.modules.core import PixelModel
from igpt.palette import Palette
from igpt.system import UserError, find_palette, last_line
from igpt.training import Recipe, apply_fsdp


class GenerativeModule(PixelModule, PixelModel):
    """A transformer, a palette and an objective over pixels.

    Args:
        transformer: shape of the network, in configs also `{preset: L}` for that of iGPT-L; `n_positions` is the
            resolution squared, `vocab_size` the palette's size, and a config may leave out both.
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
        super().__init__(Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
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
        self.recompute = self.transformer.activation_checkpointing = recompute
        self.order: Order = order
        self.register_buffer("pixel_order", pixel_order(order, self.resolution))
        self.start_from = start_from
        if start_from is not None and Path(start_from).exists():
            start_with(self, start_from)

    @property
    def core(self) -> PixelModel:
        """Itself."""
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to the sequence int64 `(B, T)`, on the device."""
        self.check_resolution(images.shape[-1])
        self.check_palette()
        tokens = self.palette.encode(images)
        return tokens if self.order == "raster" else tokens[:, self.pixel_order]

    def loss(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """Mean loss in nats per pixel of tokens `(B, T)`; all randomness comes from `rng`."""
        masked = self.draw_mask(tokens, rng)
        return pixel_loss(self.transformer(tokens, causal=self.causal, masked=masked), tokens, masked)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss, logged in nats and in bits per pixel."""
        images = len(batch[0])
        return self._step("train", batch, step_rng(self, batch_idx, images), images)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, over the validation split, with the same randomness every time."""
        return self._step("val", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """As training, over the test split, with the same randomness every time."""
        return self._step("test", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def _step(self, name: str, batch: Batch, rng: torch.Generator, counted: int) -> Tensor:
        loss = self.loss(self.encode(batch[0]), rng)
        self.log_loss(name, loss.detach(), counted)
        return loss

    def log_loss(self, name: str, loss: Tensor, images: int) -> None:
        """Log the mean over so many images and over the processes, in nats and in bits per pixel."""
        if self.logs_now:
            self.log_means({f"{name}/loss": loss, f"{name}/bits_per_pixel": loss / NATS_PER_BIT}, images)

    def configure_model(self) -> None:
        """Compile the blocks and shard the weights, once, where asked for."""
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
        known = {"transformer": self.transformer.config, "palette": None, "start_from": None} | asdict(self.recipe)
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


def colors_of(path: str | None) -> int:
    """Colours of a palette file; the paper's 512 where none is there yet."""
    file = find_palette(path) if path else None
    return Palette.load(file).k if file and file.exists() else 512


def open_palette(path: str | None, vocab_size: int) -> Palette:
    """The palette of a file; blank where no file is named, or none is there yet (checkpoints bring their own)."""
    file = None if path is None else find_palette(path)
    if file is None or not file.exists():
        return Palette.blank(vocab_size)
    palette = Palette.load(file)
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
        module.began = {"checkpoint": path, "step": step_of(content)}
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = last_line(error)
        raise UserError(f"start_from: checkpoint {path} ({kind}) does not fit this model: {reason}") from error
