"""AR pre-training: predict every pixel from those before it (paper, section 2.1)."""

import torch
from torch import Tensor

from igpt.errors import UserError
from igpt.modules.base import PixelModule
from igpt.objectives import next_pixel_loss
from igpt.sampling import generate
from igpt.transformer import TransformerConfig

GREY = 128  # shown where a picture is still to be completed


class Autoregressive(PixelModule):
    """p(x) = prod p(x_i | x_<i), sos in front, all T pixels scored. For the arguments see `PixelModule`."""

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
        super().__init__(transformer, palette, learning_rate, betas, weight_decay, warmup_steps, compile)
        if not self.transformer.config.sos:
            raise UserError("transformer.sos is false; the autoregressive objective needs it, set it to true")

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean negative log-likelihood over all T pixels, in nats per pixel."""
        return next_pixel_loss(self.transformer(tokens, causal=True), tokens)

    def features(self, tokens: Tensor, layers: list[int]) -> Tensor:
        """Layer features under the causal forward, `(len(layers), B, D)` (paper, section 2.4)."""
        return self.transformer.features(tokens, layers, causal=True)

    def draw(
        self, prefix: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> Tensor:
        """Whole images as tokens `(B, T)` that begin with `prefix (B, P)`; see `igpt.sampling.generate`."""
        was_training = self.training
        self.eval()
        tokens = generate(self.transformer, prefix, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        self.train(was_training)
        return tokens

    def draw_new(self, num: int, **settings: float | int) -> Tensor:
        """`num` images from nothing, as tokens `(num, T)`."""
        empty = torch.empty(num, 0, dtype=torch.int64, device=self.device)
        return self.draw(empty, **settings)  # type: ignore[arg-type]

    def kept_rows(self, keep: float) -> int:
        """Rows of an image that a completion leaves as they are."""
        return min(self.resolution - 1, max(1, round(keep * self.resolution)))

    def complete(
        self, originals: Tensor, num: int = 1, keep: float = 0.5, **settings: float | int
    ) -> tuple[Tensor, Tensor]:
        """Draw the lower part of images anew, `num` times each (paper, figure 1).

        Args:
            originals: uint8 `(B, 3, R, R)`.
            keep: share of the rows that is kept; at least one row is kept and one drawn.
            settings: as for `draw`.

        Returns:
            Pictures uint8 `(B, num + 2, 3, R, R)` (the kept part on grey, the completions, the original in palette
            colours) and tokens int64 `(B, num, T)`.

        """
        tokens = self.encode(originals)
        side, kept = self.resolution, self.kept_rows(keep)
        drawn = self.draw(tokens[:, : kept * side].repeat_interleave(num, 0), **settings)  # type: ignore[arg-type]
        quantised = self.palette.decode(tokens)
        shown = quantised.clone()
        shown[:, :, kept:] = GREY
        completions = self.palette.decode(drawn).unflatten(0, (-1, num))
        return torch.cat([shown[:, None], completions, quantised[:, None]], dim=1), drawn.unflatten(0, (-1, num))
