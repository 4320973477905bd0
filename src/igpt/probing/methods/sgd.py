"""Softmax regression by momentum SGD, all problems at once: for data too large for L-BFGS (paper, section 2.4).

A problem is one group of layers with one learning rate. Problems share each batch's features, but no weights: one that
diverges leaves the others as they are. Momentum SGD with rate r on a loss takes the same steps as with rate 1 on r
times the loss, so the rates are weights of the losses, and one step serves all problems.

Gradients are written out, since a step is small: the gradient of a problem's logits is its probabilities minus one at
the label. One product gives the logits of all problems of one width, another adds their gradients to the momentum.

Shapes: G groups of layers, S rates, B images, D features of a group, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model import FeatureOptions

RATES = (30.0, 10.0, 3.0, 1.0)
MOMENTUM = 0.9
EPOCHS = 100  # about what the paper's million steps are


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


class LinearProbes:
    """Weights and biases of every group's problems, zero at first, with their momentum.

    Args:
        widths: D of each group.
        rates: S learning rates.
        num_classes: K.
        like: of whose type and device the weights are.
    """

    def __init__(self, widths: list[int], rates: Sequence[float], num_classes: int, like: Tensor) -> None:
        alike = {width: [group for group, other in enumerate(widths) if other == width] for width in widths}
        self.stacks = [Stack(groups, width, rates, num_classes, like) for width, groups in alike.items()]
        self.groups, self.widths = len(widths), widths

    def stacked(self, inputs: list[Tensor]) -> list[Tensor]:
        """Inputs `(B, D)` of each group as one `(groups, B, D)` for each stack."""
        return [torch.stack([inputs[group] for group in stack.groups]) for stack in self.stacks]

    def step(self, inputs: list[Tensor], labels: Tensor, share: float) -> None:
        """One step on the mean cross-entropy of a batch, of `share` times each rate; `inputs` as of `stacked`."""
        for stack, part in zip(self.stacks, inputs, strict=True):
            stack.step(part, labels, share)

    def right(self, inputs: list[Tensor], labels: Tensor) -> Tensor:
        """How many images each problem gets right, int64 `(G, S)`; one that has diverged gets none right."""
        found: dict[int, Tensor] = {}
        for stack, part in zip(self.stacks, inputs, strict=True):
            found |= zip(stack.groups, right_counts(stack.logits(part), labels), strict=True)
        return torch.stack([found[group] for group in range(self.groups)])

    def state(self) -> tuple[dict[str, Tensor], dict[int, Any]]:
        """Weights `(D, S, K)` and biases `(S, K)` of each group by name, and momentum by their number in that order."""
        own = dict(sorted(((group, place), stack) for stack in self.stacks for place, group in enumerate(stack.groups)))
        parts = [[stack.of_group(place, kind) for (_, place), stack in own.items()] for kind in ("values", "momenta")]
        (weights, biases), (speeds, others) = (zip(*found, strict=True) for found in parts)
        names = {f"weights.{group}": value for group, value in enumerate(weights)}
        names |= {f"biases.{group}": value for group, value in enumerate(biases)}
        return names, {index: {"momentum_buffer": value} for index, value in enumerate([*speeds, *others])}

    def load(self, values: dict[str, Tensor], momenta: dict[int, Any]) -> None:
        """Take over what `state` gave; before the first step there is no momentum."""
        for stack in self.stacks:
            for place, group in enumerate(stack.groups):
                stack.set_group(place, "values", values[f"weights.{group}"], values[f"biases.{group}"])
                if momenta:
                    both = (momenta[index]["momentum_buffer"] for index in (group, self.groups + group))
                    stack.set_group(place, "momenta", *both)


class Stack:
    """The problems of all `groups` of one width D, as `LinearProbes` has them: weights `(groups, S * K, D)`.

    Images run along the last dimension of the logits, where softmax is several times quicker than along the first.
    """

    def __init__(self, groups: list[int], width: int, rates: Sequence[float], num_classes: int, like: Tensor) -> None:
        self.groups, self.shape = groups, (len(rates), num_classes)
        problems = len(groups), len(rates) * num_classes
        self.values = like.new_zeros(*problems, width), like.new_zeros(*problems, 1)
        self.momenta = like.new_zeros(*problems, width), like.new_zeros(*problems, 1)
        self.rates = like.new_tensor(rates)[:, None, None]

    def logits(self, inputs: Tensor) -> Tensor:
        """`(groups, S, K, B)` of inputs `(groups, B, D)`."""
        weight, bias = self.values
        logits: Tensor = torch.baddbmm(bias, weight, inputs.mT).unflatten(1, self.shape)
        return logits

    def step(self, inputs: Tensor, labels: Tensor, share: float) -> None:
        """See `LinearProbes.step`; momentum is `MOMENTUM` times itself plus rate times gradient."""
        chosen = F.one_hot(labels, self.shape[1]).T.to(inputs.dtype)
        slope = self.logits(inputs).softmax(2).sub_(chosen).mul_(self.rates / len(labels)).flatten(1, 2)
        weight, bias = self.momenta
        weight.baddbmm_(slope, inputs, beta=MOMENTUM)
        bias.mul_(MOMENTUM).add_(slope.sum(2, keepdim=True))
        for value, momentum in zip(self.values, self.momenta, strict=True):
            value.sub_(momentum, alpha=share)

    def of_group(self, place: int, kind: str) -> tuple[Tensor, Tensor]:
        """Weights `(D, S, K)` and biases `(S, K)` of one group, or their momenta."""
        weight, bias = (part[place].unflatten(0, self.shape) for part in getattr(self, kind))
        return weight.permute(2, 0, 1).contiguous().cpu(), bias[..., 0].clone().cpu()

    def set_group(self, place: int, kind: str, weight: Tensor, bias: Tensor) -> None:
        """The other way round."""
        for part, given in zip(getattr(self, kind), (weight.permute(1, 2, 0), bias[..., None]), strict=True):
            part[place] = given.flatten(0, 1)


def right_counts(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images `(...)` the logits `(..., K, B)` get right; where any is not finite, none."""
    highest, found = logits.max(-2)  # several times quicker than argmax along this dimension
    return ((found == labels) & (highest - logits.amin(-2)).isfinite()).sum(-1)


def best_rates(accuracy: Tensor, rates: Sequence[float]) -> list[int]:
    """For each row of validation accuracies `(G, S)` the index of the best rate; ties go to the smaller rate."""
    return [max(range(len(rates)), key=lambda s: (row[s], -rates[s])) for row in accuracy.tolist()]


def group_inputs(
    features: Tensor,
    members: list[list[int]],
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    widths: Sequence[int] | None = None,
) -> list[Tensor]:
    """Inputs `(B, D)` of each group from features `(L, B, W)`, where D is W times the group's layers.

    With `mean` and `scale`, both `(L, W)`, features are shifted and scaled, and divided by sqrt(D): the mean squared
    length is then 1, and so are the sizes of the gradients, whatever the width and however many layers. `members` has
    each group's indices along L; of a layer that is narrower than W, `widths` says how many numbers are its own.
    """
    if mean is None or scale is None:
        own = widths or [features.shape[2]] * len(features)
        return [torch.cat([features[layer, :, : own[layer]] for layer in group], 1) for group in members]
    scaled = group_inputs((features - mean[:, None]) * scale[:, None], members, widths=widths)
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
