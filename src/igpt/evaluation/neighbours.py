"""Figures from nearest neighbours, block by block: precision, recall, density, coverage, and the nearest image."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from igpt.evaluation.distances import checked

BLOCK = 1024  # rows of a matrix of distances in memory; 80 MB beside 10,000 images


class Neighbourhoods(NamedTuple):
    """Each from 0 up; all but the density to 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def blocks(one: Tensor, other: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First row and distances `(B, M)` of each block of `(N, D)` to all of `(M, D)`."""
    lengths = other.square().sum(1)
    for start in range(0, len(one), BLOCK):
        part = one[start : start + BLOCK]
        squares = torch.addmm(lengths + part.square().sum(1, keepdim=True), part, other.T, alpha=-2)
        yield start, squares.clamp_(min=0).sqrt_()


def radii(features: Tensor, k: int = 3) -> Tensor:
    """Distance `(N,)` of each of `(N, D)` to its k-th nearest other one."""
    features = checked(features)
    k = min(k, len(features) - 1)
    found = []
    for start, distances in blocks(features, features):
        rows = torch.arange(len(distances))
        distances[rows, rows + start] = torch.inf
        found.append(distances.topk(k, largest=False).values[:, -1])
    return torch.cat(found)


def neighbourhoods(real: Tensor, drawn: Tensor, k: int = 3, known: Tensor | None = None) -> Neighbourhoods:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Args:
        real: features `(N, D)` of the reference.
        drawn: features `(M, D)` of the samples.
        k: neighbours that a ball reaches to.
        known: `radii` of `real`, where they are known already.
    """
    return compared(real, drawn, k, radii(real, k) if known is None else known).neighbourhoods


class Compared(NamedTuple):
    """What one pass over the distances of samples to a reference says."""

    neighbourhoods: Neighbourhoods
    nearest: Tensor  # number of the nearest image of the reference, (M,)
    distances: Tensor  # to it, 0 between equal ones, (M,)


def compared(real: Tensor, drawn: Tensor, k: int, around: Tensor) -> Compared:
    """All that is about samples `(M, D)` beside a reference `(N, D)`, from one pass over their distances.

    Args:
        k: neighbours that a ball reaches to.
        around: `radii` of `real`.
    """
    real, drawn = checked(real), checked(drawn)
    own = radii(drawn, k)
    precise, balls, which = 0, 0, []
    recalled = torch.zeros(len(real), dtype=torch.bool)
    closest = torch.full((len(real),), torch.inf, dtype=real.dtype)
    for start, distances in blocks(drawn, real):
        inside = distances <= around
        precise += int(inside.any(1).sum())
        balls += int(inside.sum())
        recalled |= (distances <= own[start : start + len(distances), None]).any(0)
        closest = torch.minimum(closest, distances.amin(0))
        which.append(distances.argmin(1))
    covered, found = (closest <= around).double().mean(), torch.cat(which)
    near = Neighbourhoods(
        precise / len(drawn), float(recalled.double().mean()), balls / (k * len(drawn)), float(covered)
    )
    return Compared(near, found, (drawn - real[found]).norm(dim=1))


def nearest(samples: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Number `(N,)` of the nearest of `(M, D)` to each of `(N, D)`, and the distance `(N,)`, 0 between equal ones."""
    samples, training = samples.double(), training.double()
    found = torch.cat([distances.argmin(1) for _, distances in blocks(samples, training)])
    return found, (samples - training[found]).norm(dim=1)
