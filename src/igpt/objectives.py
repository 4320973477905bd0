"""What is minimised, as pure functions of logits and tokens (paper, section 2.1). Losses are in nats per pixel."""

import math

from torch import Tensor
from torch.nn import functional as F

NATS_PER_BIT = math.log(2)


def pixel_nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of every pixel, float32 `(B, T)`, from logits `(B, T, V)` and tokens int64 `(B, T)`."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


def next_pixel_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """AR: mean over images and over **all** T pixels; the first one is predicted from sos alone."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())
