"""AR over RGB values, without a palette: red, green and blue of a pixel are predicted one after another."""

from dataclasses import replace

import torch
from torch import Tensor

from igpt.data import ImageDataModule
from igpt.model import NATS_PER_BIT, Order, SamplingOptions, TransformerConfig, pixel_nll, sample
from igpt.modules.autoregressive import Autoregressive
from igpt.system import UserError
from igpt.training import Optimizer, Schedule

CHANNELS = 3


class ByteAutoregressive(Autoregressive):
    """p(x) = prod over pixels i of p(red_i | x_<i) p(green_i | red_i, x_<i) p(blue_i | red_i, green_i, x_<i).

    The sequence of a picture of T pixels has 3 T tokens: red, green and blue of each pixel, in the pixel order. Value
    v of channel c is token `c V + v`, so that a token's embedding knows its channel; each position chooses among the V
    values of its own. So p(x) is a distribution over RGB pictures, and `bits_per_dim`, logged beside the loss, is its
    exact code length over 3 T. Features are means over all 3 T positions. For the other arguments see
    `GenerativeModule`.

    Args:
        transformer: `n_positions` is of the picture, T, and `vocab_size` the values of a channel, V: 256 are all of
            them, fewer are steps of 0..255. The network has 3 T positions and 3 V tokens.
    """

    has_palette = False

    def __init__(
        self,
        transformer: TransformerConfig,
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
        recipe = (learning_rate, betas, weight_decay, warmup_steps)
        super().__init__(transformer, None, *recipe, compile, recompute, order, start_from, optimizer, schedule)

    @property
    def values(self) -> int:
        """V, the values of a channel."""
        return self.config.vocab_size

    @property
    def predicts(self) -> str:
        """RGB values, or steps of them."""
        return "RGB values" if self.values == 256 else f"RGB values in {self.values} steps"

    def network(self, config: TransformerConfig) -> TransformerConfig:
        """Three columns for each of the picture's, one a channel."""
        if not 2 <= config.vocab_size <= 256:
            raise UserError(f"transformer.vocab_size {config.vocab_size} must lie from 2 to 256, values of a channel")
        rows, columns = config.shape
        return replace(
            super().network(config),
            n_positions=CHANNELS * config.n_positions,
            vocab_size=CHANNELS * config.vocab_size,
            grid=(rows, CHANNELS * columns),
        )

    def places(self) -> Tensor:
        """The three columns of each pixel."""
        return (CHANNELS * self.pixel_order[:, None] + torch.arange(CHANNELS)).flatten()

    def by_token(self, positions: Tensor, count: int) -> list[Tensor]:
        """A pixel's tokens lie beside each other."""
        return list(positions.unflatten(0, (-1, count)).unbind(1))

    def in_sequence(self, parts: list[Tensor]) -> Tensor:
        """A pixel's tokens beside each other."""
        return torch.stack(parts, 1).flatten(0, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to the sequence int64 `(B, 3 T)`."""
        self.check_resolution((images.shape[-2], images.shape[-1]))
        values: Tensor = images.flatten(2)[:, :, self.pixel_order].long() * self.values // 256  # (B, 3, T)
        return (values.transpose(1, 2) + self._first()).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Colours `(B, T)` as `to_raster` packs them, to images uint8 `(B, 3, R, R)`; of a step its middle value."""
        powers = self.values ** torch.arange(CHANNELS - 1, -1, -1, device=tokens.device)
        values = tokens[:, None] // powers[:, None] % self.values
        least, beyond = (-(-256 * edge // self.values) for edge in (values, values + 1))
        return ((least + beyond - 1) // 2).to(torch.uint8).view(len(tokens), CHANNELS, *self.shape)

    def to_raster(self, sequence: Tensor) -> Tensor:
        """Raster order `(..., T)`: of sequences `(..., 3 T)` the colours `(red V + green) V + blue`.

        What there is one of for each pixel, `(..., T)`, stays as it is.
        """
        if sequence.shape[-1] != len(self.pixel_order):
            red, green, blue = (sequence.unflatten(-1, (-1, CHANNELS)) - self._first()).unbind(-1)
            sequence = (red * self.values + green) * self.values + blue
        return super().to_raster(sequence)

    def nll(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """-log p of each pixel's three values, float32 `(B, T)`, from logits `(B, 3 T, 3 V)`."""
        every = logits.unflatten(1, (-1, CHANNELS)).unflatten(3, (CHANNELS, -1))  # (B, T, 3, 3, V)
        own = every.diagonal(dim1=2, dim2=3).transpose(2, 3).flatten(1, 2)  # (B, 3 T, V)
        values = (tokens.unflatten(1, (-1, CHANNELS)) - self._first()).flatten(1)
        return pixel_nll(own, values).view(len(values), -1, CHANNELS).sum(2)

    def score(self, logits: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """Mean of `nll`."""
        return self.nll(logits, tokens).mean()

    def log_loss(self, name: str, loss: Tensor, images: int) -> None:
        """Also log bits per dimension."""
        super().log_loss(name, loss, images)
        if self.logs_now:
            self.log_means({f"{name}/bits_per_dim": loss / (CHANNELS * NATS_PER_BIT)}, images)

    def allowed(self, tokens: Tensor, position: int) -> Tensor:
        """The values of the position's channel, bool `(B, 3 V)`."""
        channel = torch.arange(CHANNELS * self.values, device=tokens.device) // self.values
        return (channel == position % CHANNELS).expand(len(tokens), -1)

    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """In order; an unknown pixel `(B, T)` is unknown in all channels."""
        return sample(self.transformer, tokens, ~unknown.repeat_interleave(CHANNELS, 1), options, self.allowed)

    def pooling(self, grid: int) -> Tensor | None:
        """A pixel's three positions belong to its cell."""
        pool = super().pooling(grid)
        return None if pool is None else pool.repeat_interleave(CHANNELS, 1) / CHANNELS

    def check_colors(self, data: ImageDataModule) -> None:
        """Raise a UserError for images that are made of a palette's colours, as token shards are."""
        if data.palette_sha256 is not None:
            raise UserError(
                f"--data: the images of {type(data).__name__} have the colours of a palette alone; ByteAutoregressive "
                "needs those that they were made from"
            )

    def _first(self) -> Tensor:
        """Token of value 0 of each channel, int64 `(3,)`."""
        return self.values * torch.arange(CHANNELS, device=self.pixel_order.device)
