"""AR over colours in two steps: the coarse colour of every pixel, then its colour given all of these."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from igpt.model import Order, SamplingOptions, TransformerConfig, pixel_nll, sample
from igpt.modules.autoregressive import Autoregressive
from igpt.palette import Palette, VQTokens, group_colors
from igpt.system import UserError
from igpt.training import Optimizer, Schedule


class CoarseToFine(Autoregressive):
    """p(x) = p(c) p(x | c), c being the coarse colour of each pixel, both autoregressive (Menick & Kalchbrenner 2018).

    The sequence of a picture of T pixels has 2 T tokens: the coarse colours K .. K + G - 1 of all pixels, then their
    colours 0 .. K - 1, both in the pixel order. A coarse colour has only the G coarse ones to choose from, a colour
    only those of its pixel's group, so that p(x) is a distribution over pictures and its nats per pixel compare with
    those of `Autoregressive`. Features are means over both halves. For the other arguments see `GenerativeModule`.

    Args:
        transformer: `n_positions` and `vocab_size` are of the picture, T and K; the network has 2 T and K + G.
        coarse: coarse colours, G: k-means of the palette's own colours.
    """

    offsets_hold = False  # how far the coarse picture lies above the other is its height
    coarse_of: Tensor

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
        coarse: int = 16,
        optimizer: Optimizer = "adam",
        schedule: Schedule = "cosine",
    ) -> None:
        self.coarse = coarse  # the network's shape depends on it
        recipe = (learning_rate, betas, weight_decay, warmup_steps)
        super().__init__(transformer, palette, *recipe, compile, recompute, order, None, optimizer, schedule)
        self.register_buffer("coarse_of", groups_of(self.palette, coarse))
        self.begin(start_from)

    def network(self, config: TransformerConfig) -> TransformerConfig:
        """Twice as many positions, the coarse picture above the other, and the coarse colours behind the others."""
        colors, coarse = config.vocab_size, self.coarse
        if not 2 <= coarse <= colors:
            raise UserError(f"model.init_args.coarse {coarse} must lie between 2 and {colors}, the palette's colours")
        (rows, columns), plain = config.shape, super().network(config)
        return replace(
            plain,
            n_positions=2 * config.n_positions,
            vocab_size=colors + coarse,
            grid=(2 * rows, columns),
            slices=plain.slices and 2 * plain.slices,
        )

    def places(self) -> Tensor:
        """The coarse picture's, and then the other's beneath it."""
        return torch.cat([self.pixel_order, self.pixel_order + len(self.pixel_order)])

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to the sequence int64 `(B, 2 T)`."""
        tokens = super().encode(images)
        return torch.cat([self.coarse_of[tokens] + self.config.vocab_size, tokens], 1)

    def to_raster(self, sequence: Tensor) -> Tensor:
        """The colours of sequences `(..., 2 T)`, or anything of each pixel `(..., T)`, in raster order `(..., T)`."""
        return super().to_raster(sequence[..., -len(self.pixel_order) :])

    def nll(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """-log p of each pixel's coarse colour and colour, float32 `(B, T)`, from logits `(B, 2 T, K + G)`."""
        colors = self.config.vocab_size
        (of_coarse, of_fine), (coarse, fine) = logits.chunk(2, 1), tokens.chunk(2, 1)
        other = self.coarse_of != coarse[..., None] - colors  # (B, T, K)
        within = of_fine[..., :colors].masked_fill(other, float("-inf"))
        return pixel_nll(of_coarse[..., colors:], coarse - colors) + pixel_nll(within, fine)

    def score(self, logits: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """Mean of `nll`."""
        return self.nll(logits, tokens).mean()

    def allowed(self, tokens: Tensor, position: int) -> Tensor:
        """Which tokens may stand at a position of sequences `(B, 2 T)`, bool `(B, K + G)`."""
        colors, pixels = self.config.vocab_size, len(self.pixel_order)
        coarse = torch.arange(colors + self.coarse, device=tokens.device) >= colors
        if position < pixels:
            return coarse.expand(len(tokens), -1)
        group = tokens[:, position - pixels, None] - colors
        return torch.nn.functional.pad(self.coarse_of == group, (0, self.coarse))

    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """In order; of known pixels both tokens are, so that what is drawn knows the coarse colours of all of them."""
        return sample(self.transformer, tokens, ~unknown.repeat(1, 2), options, self.allowed)

    def pooling(self, grid: int) -> Tensor | None:
        """A pixel's two positions belong to its cell."""
        pool = super().pooling(grid)
        return None if pool is None else torch.cat([pool, pool], 1) / 2

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}coarse_of" in state_dict and self.coarse_of.unique().tolist() != list(range(self.coarse)):
            raise UserError(f"its groups of colours are not {self.coarse} that have a colour each")


def groups_of(palette: Palette | VQTokens, count: int) -> Tensor:
    """Coarse colour of each colour, int64 `(K,)`; zeros for a palette that is still to come, and these with it."""
    if isinstance(palette, VQTokens):
        raise UserError(
            "model.init_args.palette: VQ tokens have no coarse colours; use Autoregressive, or a .npy palette"
        )
    return torch.zeros(palette.k, dtype=torch.int64) if palette.is_blank else group_colors(palette, count)
