"""What is minimised, as pure functions of logits and tokens (paper, sections 2.1 and 2.3). Losses are in nats."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NATS_PER_BIT = math.log(2)


def pixel_nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of every pixel, float32 `(B, T)`, from logits `(B, T, V)` and tokens int64 `(B, T)`."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


def next_pixel_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """AR: mean over images and over **all** T pixels; the first one is predicted from sos alone."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())


def draw_mask(batch: int, n_positions: int, prob: float, rng: torch.Generator) -> Tensor:
    """BERT's M, bool `(B, T)`: each position independently with probability `prob`, on the generator's device."""
    return torch.rand(batch, n_positions, generator=rng, device=rng.device) < prob


def covering_masks(n_positions: int, share: float, rng: torch.Generator) -> Tensor:
    """Disjoint masks that together cover every position once, bool `(M, T)`.

    M is the fewest masks of which none hides more than about `share` of the positions; their sizes differ by at most 1.
    """
    count = min(n_positions, math.ceil(1 / share))
    part = torch.randperm(n_positions, generator=rng) % count
    return part == torch.arange(count)[:, None]


def masked_pixel_loss(logits: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
    """BERT: mean over each image's masked positions, then over images.

    Images without a masked position are left out of the mean; if no position is masked at all, the loss is 0.

    Args:
        logits: `(B, T, V)`.
        tokens: int64 `(B, T)`.
        masked: bool `(B, T)`.
    """
    counts = masked.sum(1)
    per_image = (pixel_nll(logits, tokens) * masked).sum(1) / counts.clamp(min=1)
    return per_image.sum() / (counts > 0).sum().clamp(min=1)


def pixel_loss(logits: Tensor, tokens: Tensor, masked: Tensor | None) -> Tensor:
    """`masked_pixel_loss` where there is a mask, else `next_pixel_loss`: a scalar in nats per pixel."""
    return next_pixel_loss(logits, tokens) if masked is None else masked_pixel_loss(logits, tokens, masked)


def majority_vote(votes: Tensor, num_classes: int, rng: torch.Generator) -> Tensor:
    """The class that most of the votes `(M, B)` name, int64 `(B,)`; ties are broken at random by `rng` (a CPU one)."""
    counts = F.one_hot(votes, num_classes).sum(0).float()
    tie_break = 0.5 * torch.rand(counts.shape, generator=rng).to(counts.device)
    return (counts + tie_break).argmax(1)
