"""AR pre-training: predict every pixel from those before it (paper, section 2.1)."""

import torch
from torch import Tensor

from igpt.modules.generative import GenerativeModule
from igpt.objectives import next_pixel_loss
from igpt.sampling import generate

GREY = 128  # shown where a picture is still to be completed


class Autoregressive(GenerativeModule):
    """p(x) = prod p(x_i | x_<i), sos in front, all T pixels scored. For the arguments see `GenerativeModule`."""

    causal = True

    def draw_mask(self, tokens: Tensor, rng: torch.Generator) -> None:
        """Hide nothing: the causal mask does."""

    def score(self, normed: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """Mean negative log-likelihood over all T pixels, in nats per pixel."""
        return next_pixel_loss(self.transformer.head(normed), tokens)

    def draw(
        self, prefix: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> Tensor:
        """Whole images `(B, T)` in raster order; `prefix (B, P)` is how their sequences begin (`sampling.generate`)."""
        was_training = self.training
        self.eval()
        tokens = generate(self.transformer, prefix, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        self.train(was_training)
        return self.to_raster(tokens)

    def draw_new(self, num: int, **settings: float | int) -> Tensor:
        """`num` images from nothing, as tokens `(num, T)` in raster order."""
        empty = torch.empty(num, 0, dtype=torch.int64, device=self.device)
        return self.draw(empty, **settings)  # type: ignore[arg-type]

    def kept_pixels(self, keep: float) -> int:
        """Pixels of an image that a completion leaves as they are: whole rows, where the order is raster."""
        return min(self.resolution - 1, max(1, round(keep * self.resolution))) * self.resolution

    def complete(
        self, originals: Tensor, num: int = 1, keep: float = 0.5, **settings: float | int
    ) -> tuple[Tensor, Tensor]:
        """Draw the later part of images anew, `num` times each (paper, figure 1); in raster order the lower part.

        Args:
            originals: uint8 `(B, 3, R, R)`.
            num: completions of each.
            keep: share of the sequence that is kept; at least one row's worth is kept and one drawn.
            settings: as for `draw`.

        Returns:
            Pictures uint8 `(B, num + 2, 3, R, R)` (the kept part on grey, the completions, the original in palette
            colours) and tokens int64 `(B, num, T)` in raster order.
        """
        tokens, kept = self.encode(originals), self.kept_pixels(keep)
        drawn = self.draw(tokens[:, :kept].repeat_interleave(num, 0), **settings)  # type: ignore[arg-type]
        quantised = self.palette.decode(self.to_raster(tokens))
        shown = quantised.flatten(2)
        shown = shown.index_fill(2, self.pixel_order[kept:], GREY).view_as(quantised)
        completions = self.palette.decode(drawn).unflatten(0, (-1, num))
        return torch.cat([shown[:, None], completions, quantised[:, None]], dim=1), drawn.unflatten(0, (-1, num))
