"""Sets of pictures whose quality is known, to read a figure by: noise, blurred and shuffled pictures."""

import torch
from torch import Tensor
from torch.nn import functional as F


def noise(count: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Pictures uint8 `(count, 3, R, R)` of independent uniform bytes."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *shape), generator=rng, dtype=torch.uint8)


def noisy(images: Tensor, share: float, seed: int = 0) -> Tensor:
    """Images uint8 `(N, 3, R, R)` mixed with a share of uniform noise."""
    other = noise(len(images), (images.shape[2], images.shape[3]), seed)
    return torch.lerp(images.float(), other.float(), share).round().byte()


def blurred(images: Tensor, deviation: float = 1.0) -> Tensor:
    """Images uint8 `(N, 3, R, R)` under a Gaussian of so many pixels; edges are repeated."""
    reach = max(1, round(3 * deviation))
    at = torch.arange(-reach, reach + 1).float()
    weights = torch.exp(-0.5 * (at / deviation) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images.float(), (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, weights, groups=3)
    return F.conv2d(across, weights.transpose(2, 3), groups=3).round().clamp(0, 255).byte()


def shuffled(images: Tensor, seed: int = 0) -> Tensor:
    """Images uint8 `(N, 3, R, R)`, the pixels of each in an order of its own."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.rand(len(images), 1, images[0, 0].numel(), generator=rng).argsort(2)
    return images.flatten(2).gather(2, order.expand(-1, 3, -1)).view_as(images)
