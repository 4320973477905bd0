"""AR pre-training: predict every pixel from those before it (paper, section 2.1)."""

from typing import Any

import torch
from torch import Tensor

from igpt.model import generate, next_pixel_loss, pixel_nll
from igpt.modules.base import Batch
from igpt.modules.generative import GenerativeModule


class Autoregressive(GenerativeModule):
    """p(x) = prod p(x_i | x_<i), sos in front, all T pixels scored. For the arguments see `GenerativeModule`."""

    causal = True

    def draw_mask(self, tokens: Tensor, rng: torch.Generator) -> None:
        """Hide nothing: the causal mask does."""

    def score(self, normed: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
        """Mean negative log-likelihood over all T pixels, in nats per pixel."""
        return next_pixel_loss(self.transformer.head(normed), tokens)

    def surprise(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """-log p(x_i | x_<i) of every pixel, exact, float32 `(B, T)` in nats, in the order of the sequence."""
        return pixel_nll(self.transformer(tokens, causal=True), tokens)

    def draw_unknown(self, tokens: Tensor, unknown: Tensor, **settings: Any) -> Tensor:
        """In order, each pixel given those before it (`sampling.generate`)."""
        return generate(self.transformer, tokens, known=~unknown, **settings)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and what it is the mean of: nats per pixel of every image `(B,)`, with their labels `(B,)`."""
        images, labels = batch
        nats = self.surprise(self.encode(images)).mean(1)
        self.log_loss("test", nats.mean(), len(images))
        return {"nats": nats, "labels": labels}
