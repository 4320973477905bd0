"""Distances of two sets of features `(N, D)` and `(M, D)`: Frechet's, and the kernel distance of KID."""

from typing import NamedTuple

import torch
from torch import Tensor

from igpt.system import UserError

SUBSETS = 10
SUBSET = 1000  # features of a subset at most, as KID has them


class KernelDistance(NamedTuple):
    """A mean over subsets, and its standard error."""

    distance: float
    error: float


def checked(features: Tensor) -> Tensor:
    """Features as float64; a UserError unless they are finite `(N, D)` with N at least 2."""
    if features.ndim != 2 or len(features) < 2 or not torch.isfinite(features).all():
        raise UserError(f"features are {tuple(features.shape)}, not finite (N, D) of at least 2 images")
    return features.double()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Squared Frechet distance of two normal distributions fitted to `(N, D)` and `(M, D)` (Heusel et al. 2017).

    Biased upwards by about as much as the number of features is large beside N: compare it at equal N alone.
    """
    one, other = checked(one), checked(other)
    shift = (one.mean(0) - other.mean(0)).square().sum()
    first, second = covariance(one), covariance(other)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float(shift + first.trace() + second.trace() - 2 * shared)


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance `(D, D)` of features `(N, D)`."""
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def polynomial_mmd(one: Tensor, other: Tensor) -> float:
    """Unbiased squared MMD of `(N, D)` and `(N, D)` under the kernel (x.y / D + 1)^3 (Binkowski et al. 2018)."""
    one, other = checked(one), checked(other)
    return within(one) + within(other) - 2 * float(kernel(one, other).mean())


def within(features: Tensor) -> float:
    """Mean of the kernel over pairs of different features."""
    found, count = kernel(features, features), len(features)
    return float((found.sum() - found.trace()) / (count * (count - 1)))


def kernel(one: Tensor, other: Tensor) -> Tensor:
    """The cubic polynomial kernel `(N, M)`."""
    return (one @ other.T / one.shape[1] + 1) ** 3


def kernel_distance(one: Tensor, other: Tensor, seed: int = 0) -> KernelDistance:
    """Mean of `polynomial_mmd` over disjoint subsets in a seeded order, with the standard error of that mean.

    Subsets are disjoint, so that their figures are independent: ten, or more of 1,000 where there are more features.
    """
    rng = torch.Generator().manual_seed(seed)
    one, other = (part[torch.randperm(len(part), generator=rng)] for part in (one, other))
    count = min(len(one), len(other))
    size = min(SUBSET, max(2, count // SUBSETS))
    starts = range(0, count - size + 1, size)
    found = torch.tensor([polynomial_mmd(one[at : at + size], other[at : at + size]) for at in starts])
    error = float(found.std() / len(found) ** 0.5) if len(found) > 1 else float("nan")
    return KernelDistance(float(found.mean()), error)
