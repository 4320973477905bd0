"""What AR and BERT share: palette and pixel order on the device, the transformer, one loss step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, read_checkpoint, spec_of
from igpt.data import Resolution, rng_of, shape_of
from igpt.model import (
    NATS_PER_BIT,
    Order,
    PixelTransformer,
    SamplingOptions,
    TransformerConfig,
    condition_names,
    inverse_order,
    pixel_loss,
    pixel_order,
    resize_positions,
    resized_bias,
    slices_of,
    with_slices,
)
from igpt.modules.base import TRAIN, Batch, PixelModule, step_of
from igpt.modules.core import PixelModel
from igpt.palette import Palette, VQTokens, blank_tokens, open_tokens, pixels_of
from igpt.system import UserError, find_palette, last_line
from igpt.training import Optimizer, Recipe, Schedule, apply_fsdp, is_main_process, written


class GenerativeModule(PixelModule, PixelModel):
    """A transformer, a palette and an objective over pixels.

    Args:
        transformer: shape of the network, in configs also `{preset: L}` for that of iGPT-L; `n_positions` is the
            number of tokens, `vocab_size` the palette's size, and a config may leave out both.
        palette: `.npy` file of colours, or `.safetensors` file of VQ tokens (docs/vq.md); a checkpoint carries its
            own, so None is right when one is loaded.
        learning_rate: peak learning rate.
        betas: of Adam; the paper's are (0.9, 0.95).
        weight_decay: of Adam, or decoupled of Muon's matrices; the paper uses none.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch, as in the paper.
        compile: compile each block with `torch.compile`; the state dict keeps its keys.
        recompute: keep only the input of each block for the backward pass and compute the rest again (activation
            checkpointing): about a third more time, a fraction of the memory.
        order: raster, column, spiral, random, subscale2 or subscale4: how the pixels form a sequence
            (`igpt.model.pixel_order`).
        start_from: checkpoint whose weights and palette to start with; at another resolution its position embeddings
            are interpolated.
        optimizer: "adam", as the paper, or "muon" for the matrices of the blocks and AdamW for all else.
        schedule: "cosine", as the paper, or "wsd": warm-up, a stable rate, and a fall to zero in the last fifth.

    In configs `recipe: modern`, or `paper`, stands for optimizer, schedule and more (docs/recipes.md).

    Raises:
        UserError: the palette is no palette, its size is not `transformer.vocab_size`, or `start_from` does not fit.
    """

    offsets_hold = True  # whether two tokens are as far apart in the network's grid at every resolution

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
        optimizer: Optimizer = "adam",
        schedule: Schedule = "cosine",
    ) -> None:
        pair = betas[0], betas[1]
        super().__init__(Recipe(learning_rate, pair, weight_decay, warmup_steps, optimizer, schedule))
        config = TransformerConfig.of(transformer)
        if config.sos != self.causal:
            needed = str(self.causal).lower()
            raise UserError(
                f"transformer.sos must be {needed} for {type(self).__name__}; only AR has a start of sequence"
            )
        self.config = config
        if self.has_palette:
            self.palette = open_palette(palette, config.vocab_size)
        self.palette_path = palette
        self.order: Order = order
        self.register_buffer("pixel_order", pixel_order(order, self.shape))
        self.transformer = PixelTransformer(self.network(config), self.places())
        self.compile_blocks = compile
        self.recompute = self.transformer.activation_checkpointing = recompute
        self.begin(start_from)

    def begin(self, start_from: str | None) -> None:
        """Start with the weights of a checkpoint, where one is named and there."""
        self.start_from = start_from
        if start_from is not None and Path(start_from).exists():
            start_with(self, start_from)

    @property
    def core(self) -> PixelModel:
        """Itself."""
        return self

    def places(self) -> Tensor:
        """Raster index of each element of the sequence, int64, in the grid of `network`."""
        return self.pixel_order

    def by_token(self, positions: Tensor, count: int) -> list[Tensor]:
        """What belongs to each position, `(count * T, D)`, taken apart: for each of a pixel's tokens `(T, D)`."""
        return list(positions.chunk(count))

    def in_sequence(self, parts: list[Tensor]) -> Tensor:
        """The parts of `by_token` in the order of the sequence again."""
        return torch.cat(parts)

    def network(self, config: TransformerConfig) -> TransformerConfig:
        """The network over the sequence, for pictures of this shape."""
        return replace(config, slices=config.slices or slices_of(self.order))

    def at_resolution(self, resolution: Resolution) -> "GenerativeModule":
        """The same model for pictures of another shape, on its device.(see `PixelModel`)."""
        rows, columns = shape = shape_of(resolution)
        if shape == self.pixels:
            return self
        if self.stride > 1:
            raise UserError(f"--resolution {resolution}: VQ tokens are drawn at the model's own; leave it out")
        if self.config.positions is None or not self.offsets_hold:
            raise UserError(
                f"--resolution {resolution}: this model knows positions of {'x'.join(map(str, self.shape))} pictures "
                "alone; train one with transformer.positions bias, shared_bias or rope, or leave it out"
            )
        config = replace(self.config, n_positions=rows * columns, grid=None if rows == columns else shape)
        other = type(self)(**(self.spec()["init_args"] | {"transformer": config}))
        if self.has_palette:
            other.palette = self.palette
        load_fitted(other, self.state_dict(), self.shape)
        return other.to(self.device).eval()

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)`, or grids of their VQ tokens, to the sequence int64 `(B, T)`, on the device."""
        self.check_resolution(pixels_of(images))
        self.check_palette()
        tokens = self.palette.encode(images)
        return tokens if self.order == "raster" else tokens[:, self.pixel_order]

    def loss(self, tokens: Tensor, rng: torch.Generator, conditions: Tensor | None = None) -> Tensor:
        """Mean loss in nats per pixel of tokens `(B, T)`; all randomness comes from `rng`."""
        masked = self.draw_mask(tokens, rng)
        logits = self.transformer(tokens, causal=self.causal, masked=masked, conditions=conditions)
        return self.score(logits, tokens, masked)

    def conditioned(self, name: str, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The images as the network is shown them in "train", "val" or "test", and what it is told of each."""
        return batch[0], None

    def score(self, logits: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """`loss` from the network's logits."""
        return pixel_loss(logits, tokens, masked)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss, logged in nats and in bits per pixel."""
        images = len(batch[0])
        with keyed_dropout(self, batch_idx):
            return self._step("train", batch, step_rng(self, batch_idx, images), images)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, over the validation split, with the same randomness every time."""
        return self._step("val", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """As training, over the test split, with the same randomness every time."""
        return self._step("test", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def _step(self, name: str, batch: Batch, rng: torch.Generator, counted: int) -> Tensor:
        images, conditions = self.conditioned(name, batch, rng)
        loss = self.loss(self.encode(images), rng, conditions)
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
            apply_fsdp(self.transformer, self.device_mesh, precision=str(self.trainer.precision))

    def compile_once(self) -> None:
        """Compile each block, where asked for."""
        if self.compile_blocks:
            for block in self.transformer.blocks:
                block.compile()
            self.compile_blocks = False

    def draw(self, num: int, seed: int) -> Tensor | None:
        """Samples for TensorBoard."""
        return self.decode(self.sample(num, SamplingOptions(seed=seed))) if num else None

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data; the colours travel in the state dict, not by file name."""
        sizes = self.palette.written if self.has_palette else None
        known = {"transformer": self.config, "palette": sizes, "start_from": None} | asdict(self.recipe)
        spec = spec_of(self, known | dict.fromkeys(("compile", "recompute"), False))
        return spec | {"init_args": written(spec["init_args"])}


def step_rng(module: PixelModule, batch_idx: int, images: int) -> torch.Generator:
    """Randomness of one training step: a function of (seed, step, batch), so that resuming repeats it.

    Processes share one stream as they share the global batch, each beginning with its own images: what an image's mask
    or transformation is does not depend on their number.

    Args:
        images: in the batch of each process.
    """
    core = module.core
    rng = rng_of(TRAIN, core.mask_seed, module.global_step, batch_idx, 0)
    torch.rand(module.global_rank * images * core.draws, generator=rng)  # those of the processes before
    return rng


@contextmanager
def keyed_dropout(module: PixelModule, batch_idx: int) -> Iterator[None]:
    """Have what dropout draws of torch meanwhile be a function of (seed, step, batch, process).

    So resuming repeats it; checkpoints hold no state of torch's generators, and these go on as if nothing was drawn.
    Each process drops other numbers. Activation checkpointing keeps the state that it runs a block again with itself.
    """
    core = module.core
    if not core.config.dropout:
        yield
        return
    key = TRAIN, core.mask_seed, module.global_step, batch_idx, 1, module.global_rank
    with torch.random.fork_rng([module.device] if module.device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(rng_of(*key).initial_seed())
        yield


def colors_of(path: str | None) -> int:
    """Colours of a palette file; the paper's 512 where none is there yet."""
    file = find_palette(path) if path else None
    return open_tokens(file).k if file and file.exists() else 512


def open_palette(path: str | None, vocab_size: int) -> Palette | VQTokens:
    """The palette of a file; blank where no file is named, or none is there yet (checkpoints bring their own)."""
    file = None if path is None else find_palette(path)
    if file is None or not file.exists():
        return blank_tokens(path, vocab_size)
    palette = open_tokens(file)
    if palette.k != vocab_size:
        raise UserError(
            f"palette file {path} has {palette.k} colours but transformer.vocab_size is {vocab_size}; make them equal"
        )
    return palette


def start_with(module: GenerativeModule, path: str) -> None:
    """Load weights and palette of another run; what stands for positions is fitted to another resolution.

    Raises:
        UserError: the checkpoint cannot be read, or is of another shape, kind or pattern of attention.
    """
    content = read_checkpoint(path)
    model = content[CHECKPOINT_KEY]["model"]
    kind = model["class_path"].rpartition(".")[2]
    try:
        stored = TransformerConfig.of((model["init_args"].get("generative") or model)["init_args"]["transformer"])
        check_same_attention(stored, module.config)
        state = {name.removeprefix("generative."): value for name, value in content["state_dict"].items()}
        if ("transformer.sos" in state) != module.causal:
            raise ValueError(f"{type(module).__name__} takes weights of its own kind; only AR has a start of sequence")
        module.config.check_weights(stored.to_dict(), f"start_from: checkpoint {path}")
        fit_slices(state, module.transformer.slices)
        fit_conditions(state, (model["init_args"].get("generative") or model)["init_args"], module)
        state = {name: value for name, value in state.items() if name in module.state_dict()}
        check_finite(state.items(), f"start_from: checkpoint {path}")
        if stored.shape != module.shape and is_main_process():
            print(f"positions of {path} fitted from {len(state['pixel_order'])} to {len(module.pixel_order)} pixels")
        load_fitted(module, state, stored.shape)
        module.began = {"checkpoint": path, "step": step_of(content)}
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = last_line(error)
        raise UserError(f"start_from: checkpoint {path} ({kind}) does not fit this model: {reason}") from error


def check_same_attention(one: TransformerConfig, other: TransformerConfig) -> None:
    """Raise a ValueError where two networks do not see by the same patterns, or know positions in another way."""
    for name in ("attention", "positions", "qk_norm"):
        if getattr(one, name) != getattr(other, name):
            raise ValueError(
                f"its transformer.{name} is {getattr(one, name)}, this model's {getattr(other, name)}; make them equal"
            )


def load_fitted(module: GenerativeModule, state: dict[str, Tensor], shape: tuple[int, int]) -> None:
    """Load weights that may be of another order, or of pictures of another `shape`.

    Embeddings of positions are interpolated; a bias takes that of the farthest offset for those that it did not meet.
    """
    order, new_order = state["pixel_order"], module.pixel_order
    fitted = dict(state, pixel_order=new_order)
    for name, own in module.state_dict().items():
        if name == "transformer.wpe":
            parts = module.by_token(state[name], len(state[name]) // len(order))
            if shape == module.shape:
                parts = [part[inverse_order(order)][new_order] for part in parts]
            else:
                parts = [resize_positions(part, order, new_order, shape, module.shape) for part in parts]
            fitted[name] = module.in_sequence(parts)
        elif name.endswith((".attn.bias.rows", ".attn.bias.columns")):
            fitted[name] = resized_bias(state[name], own.shape[1])
    module.load_state_dict(fitted)


def fit_conditions(state: dict[str, Tensor], stored: dict[str, Any], module: GenerativeModule) -> None:
    """Make a checkpoint's vectors of conditions those of a network that may know others, which begin at zero.

    Args:
        state: the checkpoint's weights; changed in place.
        stored: arguments of the checkpoint's module.
        module: whose network takes them.
    """
    found, own = state.pop("transformer.conditions", None), module.transformer.conditions
    if own is None:
        return
    known = condition_names(stored.get("augment"), stored.get("classes"))
    fitted = torch.zeros_like(own)
    for row, name in enumerate(condition_names(module.augment, module.classes)):
        if found is not None and name in known:
            fitted[row] = found[known.index(name)]
    state["transformer.conditions"] = fitted


def fit_slices(state: dict[str, Tensor], own: Tensor | None) -> None:
    """Make a checkpoint's embeddings of slices those of a network that has `own (S, D)`, or none.

    Where their numbers differ, the checkpoint's are added to its position embeddings, and the network's begin at zero.
    """
    found = state.pop("transformer.slices", None)
    if found is None or own is None or found.shape != own.shape:
        if "transformer.wpe" in state:
            state["transformer.wpe"] = with_slices(state["transformer.wpe"], found)
        found = None if own is None else torch.zeros_like(own)
    if found is not None:
        state["transformer.slices"] = found
