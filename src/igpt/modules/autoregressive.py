"""AR pre-training: predict every pixel from those before it (paper, section 2.1)."""

from torch import Tensor

from igpt.model import SamplingOptions, pixel_nll, sample
from igpt.modules.base import Batch
from igpt.modules.generative import GenerativeModule


class Autoregressive(GenerativeModule):
    """p(x) = prod p(x_i | x_<i), sos in front, all T pixels scored. For the arguments see `GenerativeModule`."""

    causal = True

    def surprise(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """-log p(x_i | x_<i) of every pixel, exact, float32 `(B, T)` in nats, in the order of the sequence."""
        return self.nll(self.transformer(tokens, causal=True), tokens)

    def nll(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """`surprise` from the network's logits."""
        return pixel_nll(logits, tokens)

    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """In order, each pixel given those before it (`igpt.model.sample`)."""
        return sample(self.transformer, tokens, ~unknown, options)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and what it is the mean of: nats per pixel of every image `(B,)`, with their labels `(B,)`."""
        images, labels = batch
        nats = self.surprise(self.encode(images)).mean(1)
        self.log_loss("test", nats.mean(), self.counted(batch_idx, len(images)))
        return {"nats": nats, "labels": labels}
