"""The attentive probe: a classifier that chooses among the tokens of a layer, in place of their mean.

Efficient probing (Psomas et al., "Attention, Please!", ICLR 2026): M learned queries attend straight to a layer's
tokens, without a projection to keys; a value projection D x D is shared out among them, D / M columns each; what the M
read stands side by side, and a linear classifier follows. Since attention is a weighted mean, the projection is applied
behind it, to M vectors an image instead of T tokens.

It begins as the linear probe of mean features: queries and classifier are zero, and the values are the mean features,
standardised. Nothing is drawn at random.

Shapes: S rates, B images, T tokens, D width, M queries, K classes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model import FeatureOptions
from igpt.probing.methods.sgd import Moments, right_counts
from igpt.probing.store import FeatureType

RATES = (3e-2, 1e-2, 3e-3)
EPOCHS, STEPS = 15, 450  # unless given, so many epochs, and of few images as many as make so many steps
QUERIES = 8
BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's
NAMES = ("query", "value", "weight", "bias")


@dataclass(frozen=True)
class AttentiveRecipe:
    """Which attentive probes to train, and how.

    Args:
        layers: a head each, for every rate.
        queries: M; the width's largest divisor up to it is taken.
        rates: Adam's; each falls to zero by a cosine.
        standardise: queries see tokens of mean 0 and deviation 1, and values begin as mean features of the same.
        statistics_images: at most so many images for mean and deviation, chosen by the data's seed.
        dtype: to which tokens are rounded, as features on disk are.
    """

    layers: list[int]
    how: FeatureOptions
    num_classes: int
    queries: int = QUERIES
    rates: tuple[float, ...] = RATES
    epochs: int = EPOCHS
    standardise: bool = True
    statistics_images: int = 1_000
    dtype: FeatureType = "float16"


def queries_of(width: int, at_most: int) -> int:
    """The largest number of queries up to `at_most` that divides the width."""
    return max(number for number in range(1, at_most + 1) if width % number == 0)


def head_logits(
    tokens: Tensor, mean: Tensor, scale: Tensor, query: Tensor, value: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Logits `(S, B, K)` of one layer's heads.

    Queries and values see `(tokens - mean) * scale`, which is never made: softmax does not see a shift of all scores,
    and a weighted mean may be shifted and scaled after it was taken.

    Args:
        tokens: float `(B, T, D)`.
        mean, scale: `(D,)`.
        query: `(S, M, D)`.
        value: `(S, M, D, D / M)`.
        weight, bias: the classifiers', `(S, D, K)` and `(S, K)`.
    """
    asked = (query * (scale / math.sqrt(len(scale)))).flatten(0, 1)
    attention = (asked @ tokens.mT).softmax(-1)  # (B, S * M, T)
    read = ((attention @ tokens - mean) * scale).transpose(0, 1)  # (S * M, B, D)
    parts = (read @ value.flatten(0, 1)).unflatten(0, query.shape[:2])  # (S, M, B, D / M)
    return torch.baddbmm(bias[:, None], parts.transpose(1, 2).flatten(2), weight)


class TokenMoments:
    """Mean of tokens, and deviation of tokens and of each image's mean token, of layers `(L, D)`."""

    def __init__(self) -> None:
        self.means, self.within = Moments(), torch.zeros(1, dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Add tokens `(L, B, T, D)` of B more images."""
        variance, mean = torch.var_mean(tokens, 2, correction=0)
        self.means.add(mean)
        self.within = self.within + variance.sum(1).cpu().double()

    def scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, 1 / deviation of tokens, and that of mean tokens relative to it; 0 where a feature is constant."""
        means = self.means.scale()
        varies = means > 0
        between = torch.where(varies, 1 / means.where(varies, 1), 0)
        tokens = (between.square() + self.within / self.means.count).sqrt()
        scale = torch.where(varies, 1 / tokens.where(varies, 1), 0)
        return tuple(part.float() for part in (self.means.mean, scale, tokens * means))  # type: ignore[return-value]


class AttentiveProbes:
    """Heads of L layers with S rates each, trained by Adam; `values` by `NAMES`, each `(L, S, ...)`."""

    def __init__(self, recipe: AttentiveRecipe, width: int, like: Tensor) -> None:
        layers, rates = len(recipe.layers), len(recipe.rates)
        queries = queries_of(width, recipe.queries)
        shapes = [(queries, width), (queries, width, width // queries), (width, recipe.num_classes),
                  (recipe.num_classes,)]  # fmt: skip
        self.values = {name: like.new_zeros(layers, rates, *shape) for name, shape in zip(NAMES, shapes, strict=True)}
        self.firsts, self.seconds = ({n: v.clone() for n, v in self.values.items()} for _ in range(2))
        self.rates = like.new_tensor(recipe.rates)
        self.mean, self.scale = like.new_zeros(layers, width), like.new_ones(layers, width)
        self.steps = self.epochs_done = 0
        self.begin(self.scale)

    def begin(self, factor: Tensor) -> None:
        """Let values be tokens times `factor (L, D)`, so that what the heads read are mean tokens times it."""
        value = self.values["value"]
        _, _, queries, _, part = value.shape
        value.copy_(torch.diag_embed(factor).unflatten(2, (queries, part)).transpose(1, 2)[:, None])

    def standardise(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation of tokens `(L, B, T, D)`, before the first step."""
        moments = TokenMoments()
        for tokens in batches:
            moments.add(tokens)
        for own, found in zip((self.mean, self.scale), moments.scales()[:2], strict=True):
            own.copy_(found)
        self.begin(moments.scales()[2].to(self.scale))

    def step(self, tokens: Iterable[Tensor], labels: Tensor, share: float) -> None:
        """One step of every head on the mean cross-entropy of a batch, of `share` times each rate.

        Layers come one after another, `(B, T, D)` each: what one needs then fits into a CPU's caches, which makes it
        twice as quick as all at once.
        """
        self.steps += 1
        for layer, some in enumerate(tokens):
            with torch.enable_grad():
                own = [value[layer].detach().requires_grad_() for value in self.values.values()]
                logits = head_logits(some, self.mean[layer], self.scale[layer], *own)
                targets = labels.expand(len(logits), -1)
                losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(labels)
                slopes = torch.autograd.grad(losses, own)
            for name, slope in zip(NAMES, slopes, strict=True):
                self._adam(name, layer, slope, share)

    def _adam(self, name: str, layer: int, slope: Tensor, share: float) -> None:
        """Kingma and Ba 2015, algorithm 1, on one part of one layer's heads."""
        first, second = self.firsts[name][layer], self.seconds[name][layer]
        first.lerp_(slope, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
        one, two = (1 - beta**self.steps for beta in BETAS)
        rates = (self.rates * (share / one)).view(-1, *[1] * (slope.ndim - 1))
        self.values[name][layer].sub_(rates * first / (second.div(two).sqrt_().add_(EPS)))

    def right(self, tokens: Iterable[Tensor], labels: Tensor) -> Tensor:
        """How many images each head gets right, int64 `(L, S)`; one that has diverged gets none right."""
        own = zip(tokens, self.mean, self.scale, *self.values.values(), strict=True)
        return torch.stack([right_counts(head_logits(*parts).mT, labels) for parts in own])

    def state(self) -> dict[str, Any]:
        """Everything that training goes on from."""
        kinds = {"values": self.values, "firsts": self.firsts, "seconds": self.seconds}
        named = {f"{kind}.{name}": part.cpu() for kind, of in kinds.items() for name, part in of.items()}
        own = {"mean": self.mean.cpu(), "scale": self.scale.cpu()}
        return {"state_dict": named | own, "steps": self.steps, "epochs_done": self.epochs_done}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for name, value in state["state_dict"].items():
            kind, _, part = name.partition(".")
            (getattr(self, kind)[part] if part else getattr(self, kind)).copy_(value)
        self.steps, self.epochs_done = state["steps"], state["epochs_done"]
