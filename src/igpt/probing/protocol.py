"""The probe protocol: choose on validation, refit on train + val, test once (paper, section 3.1); and its contract."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.data import SPLITS, ImageDataModule
from igpt.families import LoadedSource, ProbedSource
from igpt.model import FeatureOptions, check_layers
from igpt.modules import Loaded, PixelModule
from igpt.probing.store import FeatureStore, FeatureType
from igpt.system import Compute, UserError

RAW_PIXELS = -1  # in place of a layer
SplitFeatures = dict[str, tuple[Tensor, Tensor]]  # "train", "val", "test": features float (L, N, D), labels int64 (N,)
Probed = PixelModule | ProbedSource  # a frozen network of igpt, or a source of another family
Group = tuple[int, ...]  # a layer, or several whose features stand one after another


@dataclass(frozen=True)
class LayerResult:
    """What a probe of one layer reached; accuracies are shares of 1.

    `chosen` is the penalty, learning rate or number of neighbours, and `tried` has the validation accuracy of each that
    was to choose from, where it is known. `layers` has several entries where their features are concatenated.
    """

    layers: Group
    chosen: float
    val_accuracy: float
    test_accuracy: float
    train_accuracy: float | None = None
    tried: dict[float, float] = field(default_factory=dict)

    @classmethod
    def of(cls, row: dict[str, Any], chosen: str) -> "LayerResult":
        """The result that `row` wrote down."""
        layers = tuple(row["layers"]) if "layers" in row else (row["layer"],)
        return cls(layers, row[chosen], row["val_accuracy"], row["test_accuracy"], row.get("train_accuracy"))

    @property
    def layer(self) -> int:
        """The layer's number, of the first one where there are several."""
        return self.layers[0]

    def row(self, chosen: str) -> dict[str, Any]:
        """Plain data for JSON and CSV; `chosen` names what was chosen on validation, such as "strength"."""
        name = {"layer": self.layer} if len(self.layers) == 1 else {"layers": list(self.layers)}
        accuracies = {"val_accuracy": self.val_accuracy, "test_accuracy": self.test_accuracy}
        trained = {} if self.train_accuracy is None else {"train_accuracy": self.train_accuracy}
        return {**name, chosen: self.chosen, **accuracies, **trained}


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe is asked for, as `igpt probe` describes it."""

    layers: str
    concat: int | None
    labels_per_class: list[int] | None
    subsets: int
    features: FeatureOptions
    standardise: bool
    dtype: FeatureType | None
    epochs: int | None  # None is the method's own number

    def check(self, module: Probed) -> None:
        """Raise a UserError for what makes no probe of this network."""
        core, few = module.core, self.labels_per_class
        numbers = self.layer_numbers(core.n_layers)
        if self.concat is not None and not 2 <= self.concat <= core.n_layers + 1:
            raise UserError(f"--concat {self.concat} must lie between 2 and {core.n_layers + 1}, the number of layers")
        if self.concat is not None and len(numbers) <= core.n_layers:
            raise UserError("--concat needs the neighbours of the best layer, whichever it is; leave --layers out")
        if few is not None and (not few or min(few) < 1):
            raise UserError(f"--labels_per_class {few}: give numbers of at least 1, such as 4 25 400")
        if self.subsets < 1 or (self.epochs is not None and self.epochs < 1):
            raise UserError("--subsets and --epochs must be at least 1")
        core.check_features(self.features)

    def layer_numbers(self, n_layers: int) -> list[int]:
        """The layers in ascending order; a UserError for what is no layer."""
        if self.layers == "all":
            return list(range(n_layers + 1))
        try:
            layers = sorted({int(part) for part in self.layers.split(",")})
        except ValueError as error:
            raise UserError(f"--layers {self.layers!r} is neither 'all' nor numbers such as 0,4,8") from error
        check_layers(layers, n_layers)
        return layers

    @property
    def stored_as(self) -> FeatureType:
        """The type of features on disk."""
        return self.dtype or ("float16" if self.features.norm == "normed" else "float32")


@dataclass(frozen=True)
class ProbeTask:
    """A network, prepared images of so many classes, and what is asked for; results go to `folder`.

    `features` are added once they are stored; they stay None where every method trains on images anew in every epoch.
    """

    loaded: Loaded | LoadedSource
    data: ImageDataModule
    classes: int
    options: ProbeOptions
    folder: Path
    compute: Compute
    features: FeatureStore | None = None

    @property
    def layers(self) -> list[int]:
        """The layers' numbers."""
        return self.options.layer_numbers(self.loaded.module.core.n_layers)

    @property
    def changing(self) -> bool:
        """Whether the features of an image differ from epoch to epoch."""
        return self.data.images("train").augments or self.options.features.masks > 0


Fit = Callable[[SplitFeatures, list[Group], int], list[LayerResult]]


@dataclass(frozen=True)
class ProbeMethod:
    """One way to fit a classifier on layer features: an entry of `igpt.probing.methods.METHODS`.

    Args:
        name: as users type it.
        chosen: what is chosen on validation; names a column of probe.csv.
        how: a line for probe.json.
        probe: results of some groups of layers.
        pixels: the same on raw pixels, to compare with; None where that is left to other methods.
        settings: choices of this method alone that change its numbers.
        forget: removes what a killed probe of these groups would be resumed from, once its results are written.
        stored: whether it needs stored features.
        number: format of what was chosen, in the printed table.
        check: raises a UserError for options, or a network, that it is not defined for.
        in_all: whether "all" names it, too.
    """

    name: str
    chosen: str
    how: str
    probe: Callable[[ProbeTask, list[Group]], list[LayerResult]]
    pixels: Callable[[ProbeTask], LayerResult] | None = None
    settings: Callable[[ProbeTask], dict[str, Any]] = lambda task: {}
    forget: Callable[[ProbeTask, list[Group]], None] = lambda task, groups: None
    stored: Callable[[ProbeTask], bool] = lambda task: True
    number: str = "8g"
    check: Callable[[ProbeOptions, Probed], None] = lambda options, module: None
    in_all: bool = True


def on_features(fit: Fit) -> dict[str, Any]:
    """`probe` and `pixels` of a method that fits features in memory."""
    return {"probe": partial(on_stored_features, fit), "pixels": partial(on_pixels, fit)}


def on_stored_features(fit: Fit, task: ProbeTask, groups: list[Group]) -> list[LayerResult]:
    """Probe stored features, as many layers at once as fit into memory."""
    assert task.features is not None
    if len(groups) == 1 and len(groups[0]) > 1:
        return in_memory(fit, task, joined(task.features.splits(list(groups[0]))), groups)
    results: list[LayerResult] = []
    for some in task.features.in_turn([group[0] for group in groups]):
        results += in_memory(fit, task, task.features.splits(some), [(layer,) for layer in some])
    return results


def in_memory(fit: Fit, task: ProbeTask, splits: SplitFeatures, groups: list[Group]) -> list[LayerResult]:
    """Probe features that lie in memory, standardised where asked."""
    return fit(standardised_splits(splits) if task.options.standardise else splits, groups, task.classes)


def on_pixels(fit: Fit, task: ProbeTask) -> LayerResult:
    """Probe raw pixels."""
    return in_memory(fit, task, pixel_splits(task.data), [(RAW_PIXELS,)])[0]


def pixel_splits(data: ImageDataModule) -> SplitFeatures:
    """All splits as raw pixels, float32 `(1, N, 3 R R)` in 0..1."""
    splits: SplitFeatures = {}
    for name in SPLITS:
        batches = [(images.flatten(1).float() / 255, labels) for images, labels in data.loader(name)]
        splits[name] = (torch.cat([b[0] for b in batches])[None], torch.cat([b[1] for b in batches]))
    return splits


def standardised_splits(splits: SplitFeatures) -> SplitFeatures:
    """All splits, standardised by the training split."""
    scaled = standardise(splits["train"][0], [features for features, _ in splits.values()])
    return {name: (part, splits[name][1]) for name, part in zip(splits, scaled, strict=True)}


def standardise(reference: Tensor, all_features: list[Tensor]) -> list[Tensor]:
    """Shift and scale each feature to mean 0 and deviation 1 on `reference (L, N, D)`; constant ones become 0."""
    mean, scale = moments(reference)
    return [(features - mean) * scale for features in all_features]


def moments(reference: Tensor) -> tuple[Tensor, Tensor]:
    """What standardising by `reference (L, N, D)` takes away and multiplies with, both `(L, 1, D)`."""
    std = reference.std(1, keepdim=True, correction=0)
    return reference.mean(1, keepdim=True), torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 0.0)


def joined(splits: SplitFeatures) -> SplitFeatures:
    """Concatenate the features of several layers, `(L, N, D)` to `(1, N, L * D)` (paper, section 4.3)."""
    return {name: (part.transpose(0, 1).flatten(1)[None], labels) for name, (part, labels) in splits.items()}


def window(best: int, width: int, n_layers: int) -> list[int]:
    """`width` adjacent layers around `best`, moved inwards where they would leave 0..n_layers."""
    first = min(max(0, best - width // 2), n_layers + 1 - width)
    return list(range(first, first + width))


def best_layer(results: list[LayerResult]) -> LayerResult:
    """The layer with the best validation accuracy, the lower one on a tie."""
    return max(results, key=lambda result: (result.val_accuracy, -result.layer))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Accuracy `(...)` of logits `(..., N, K)`."""
    return (logits.argmax(-1) == labels).float().mean(-1)
