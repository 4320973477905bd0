"""Softmax regression by momentum SGD, all problems at once: for data too large for L-BFGS (paper, section 2.4).

A problem is one group of layers with one learning rate. Problems share each batch's features, but no weights: one that
diverges leaves the others as they are. Momentum SGD with rate r on a loss takes the same steps as with rate 1 on r
times the loss, so the rates are weights of the losses, and one optimizer serves all problems.

Shapes: G groups of layers, S rates, B images, D features of a group, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from igpt.model import FeatureOptions
from igpt.training import warmup_cosine

RATES = (30.0, 10.0, 3.0, 1.0)
MOMENTUM = 0.9


@dataclass(frozen=True)
class SGDRecipe:
    """Which probes to train by SGD, and how.

    Args:
        groups: layers whose features stand one after another, such as [[0], [1], [2, 3, 4]].
        rates: learning rates; each falls to zero by a cosine.
        standardise: features, by mean and deviation of training images (see `group_inputs`); False is the paper's.
        statistics_images: at most so many images for mean and deviation, chosen by the data's seed.
    """

    groups: list[list[int]]
    how: FeatureOptions
    num_classes: int
    rates: tuple[float, ...] = RATES
    epochs: int = 30
    standardise: bool = True
    statistics_images: int = 10_000

    @property
    def layers(self) -> list[int]:
        """All layers that some group needs, in ascending order."""
        return sorted({layer for group in self.groups for layer in group})

    @property
    def members(self) -> list[list[int]]:
        """For each group the places of its layers in `layers`."""
        return [[self.layers.index(layer) for layer in group] for group in self.groups]


class LinearProbes(nn.Module):
    """Weights `(D, S, K)` and biases `(S, K)` of every group's problems, zero at first; `widths` has each group's D."""

    def __init__(self, widths: list[int], n_rates: int, num_classes: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros(width, n_rates, num_classes) for width in widths)
        self.biases = nn.ParameterList(torch.zeros(n_rates, num_classes) for _ in widths)

    def forward(self, inputs: list[Tensor], chosen: list[int] | None = None) -> list[Tensor]:
        """Logits `(B, S, K)` of each group from its inputs `(B, D)`; `(B, 1, K)` where one rate a group is `chosen`."""
        logits = []
        for group, part in enumerate(inputs):
            weight, bias = self.weights[group], self.biases[group]
            if chosen is not None:
                weight, bias = weight[:, [chosen[group]]], bias[[chosen[group]]]
            logits.append((part @ weight.flatten(1)).unflatten(1, weight.shape[1:]) + bias)
        return logits


def problem_losses(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of every problem, `(G, S)`, from each group's logits `(B, S, K)`."""
    losses = []
    for part in logits:
        images, rates, _ = part.shape
        each = F.cross_entropy(part.flatten(0, 1), labels.repeat_interleave(rates), reduction="none")
        losses.append(each.view(images, rates).mean(0))
    return torch.stack(losses)


def weighted_loss(losses: Tensor, rates: Sequence[float]) -> Tensor:
    """Sum of the losses `(G, S)`, each times its learning rate."""
    return (losses * losses.new_tensor(rates)).sum()


def make_optimizer(probes: LinearProbes, total_steps: int, done: int = 0) -> tuple[torch.optim.SGD, LambdaLR]:
    """Momentum SGD whose rate falls from 1 to 0 by a cosine over `total_steps`, of which `done` are behind."""
    optimizer = torch.optim.SGD(probes.parameters(), lr=1.0, momentum=MOMENTUM)
    return optimizer, LambdaLR(optimizer, lambda step: warmup_cosine(done + step, 0, total_steps))


def right_counts(logits: list[Tensor], labels: Tensor) -> Tensor:
    """How many images each problem gets right, int64 `(G, S)`; one that has diverged gets none right."""
    return torch.stack([((part.argmax(-1) == labels[:, None]) & part.isfinite().all(-1)).sum(0) for part in logits])


def best_rates(accuracy: Tensor, rates: Sequence[float]) -> list[int]:
    """For each row of validation accuracies `(G, S)` the index of the best rate; ties go to the smaller rate."""
    return [max(range(len(rates)), key=lambda s: (row[s], -rates[s])) for row in accuracy.tolist()]


def group_inputs(
    features: Tensor, members: list[list[int]], mean: Tensor | None = None, scale: Tensor | None = None
) -> list[Tensor]:
    """Inputs `(B, D)` of each group from features `(L, B, W)`, where D is W times the group's layers.

    With `mean` and `scale`, both `(L, W)`, features are shifted and scaled, and divided by sqrt(D): the mean squared
    length is then 1, and so are the sizes of the gradients, whatever the width and however many layers. `members` has
    each group's indices along L.
    """
    if mean is None or scale is None:
        return [features[group].transpose(0, 1).flatten(1) for group in members]
    scaled = group_inputs((features - mean[:, None]) * scale[:, None], members)
    return [part / math.sqrt(part.shape[1]) for part in scaled]


class Moments:
    """Running mean and standard deviation of features, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.scatter = torch.zeros(1, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add features `(L, B, W)` of B more images (Chan et al.'s pairwise update)."""
        new = features.cpu().double()
        images = new.shape[1]
        mean = new.mean(1)
        offset, share = mean - self.mean, images / (self.count + images)
        self.scatter = self.scatter + (new - mean[:, None]).square().sum(1) + offset.square() * self.count * share
        self.mean = self.mean + offset * share
        self.count += images

    def scale(self) -> Tensor:
        """1 / deviation, float64 `(L, W)`; 0 where a feature is constant but for rounding."""
        deviation = (self.scatter / self.count).sqrt()
        varies = deviation > 1e-6 * self.mean.abs().clamp(min=1)
        return torch.where(varies, 1 / deviation.where(varies, 1), 0)
