"""The registry of probe methods, and what `igpt probe` does with each of them.

A new method is a `ProbeMethod` in `METHODS`: its name, what it chooses on validation, and a function from a task and
groups of layers to results.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from igpt.data import SPLITS, ImageDataModule, LabelledImages, few_per_class
from igpt.model import FeatureOptions, check_layers
from igpt.modules import Loaded, PixelModule
from igpt.probing.extract import StoredFeatures
from igpt.probing.protocol import (
    Group,
    LayerResult,
    SplitFeatures,
    best_layer,
    joined,
    knn_layers,
    lbfgs_layers,
    probe_subset,
    standardised_splits,
    summary,
    window,
)
from igpt.probing.sgd import SGDRecipe
from igpt.probing.sgd_training import STATE, sgd_probe
from igpt.probing.store import FeatureStore, FeatureType
from igpt.system import Compute, UserError, remove_own

RAW_PIXELS = -1  # in place of a layer


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe is asked for.

    Args:
        layers: "all", or numbers such as "0,4,8".
        method: "all", or names of `METHODS` with commas between them.
        concat: so many neighbours of the best layer are also probed together; None for none.
        labels_per_class: also fit L-BFGS probes on so few training images of each class.
        subsets: how many subsets of each size.
        features: what counts as a layer's features.
        standardise: features, by the training split.
        dtype: of the stored features; None is float16, and float32 for raw ones.
        epochs: of the sgd probe.
    """

    layers: str = "all"
    method: str = "lbfgs"
    concat: int | None = None
    labels_per_class: list[int] | None = None
    subsets: int = 5
    features: FeatureOptions = field(default_factory=FeatureOptions)
    standardise: bool = True
    dtype: FeatureType | None = None
    epochs: int = 100

    def check(self, module: PixelModule) -> None:
        """Raise a UserError for what makes no probe of this network."""
        core, few = module.core, self.labels_per_class
        numbers, _ = self.layer_numbers(core.n_layers), self.methods
        if self.concat is not None and not 2 <= self.concat <= core.n_layers + 1:
            raise UserError(f"--concat {self.concat} must lie between 2 and {core.n_layers + 1}, the number of layers")
        if self.concat is not None and len(numbers) <= core.n_layers:
            raise UserError("--concat needs the neighbours of the best layer, whichever it is; leave --layers out")
        if few is not None and (not few or min(few) < 1):
            raise UserError(f"--labels_per_class {few}: give numbers of at least 1, such as 4 25 400")
        if self.subsets < 1 or self.epochs < 1:
            raise UserError("--subsets and --epochs must be at least 1")
        self.features.check(core.resolution, core.causal)

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
    def methods(self) -> "list[ProbeMethod]":
        """The methods in the order given; a UserError for what is none."""
        names = list(METHODS) if self.method == "all" else list(dict.fromkeys(self.method.split(",")))
        wrong = [name for name in names if name not in METHODS]
        if wrong:
            known = ", ".join(METHODS)
            raise UserError(f"--method {','.join(wrong)}; choose from {known}, several with commas, or all")
        return [METHODS[name] for name in names]

    @property
    def stored_as(self) -> FeatureType:
        """The type of features on disk."""
        return self.dtype or ("float16" if self.features.norm == "normed" else "float32")


@dataclass(frozen=True)
class ProbeTask:
    """A network, labelled images, and what is asked for; `features` are added once they are stored.

    Args:
        loaded: the checkpoint.
        data: prepared.
        classes: how many the labels count.
        options: checked.
        folder: of the results.
        compute: where the network runs, and in which precision.
        features: of all layers; None where every method trains on images anew in every epoch.
    """

    loaded: Loaded
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

    def training(self, layers: list[int]) -> Path:
        """Where a killed sgd probe of these layers is resumed from."""
        return self.folder / "sgd" / "_".join(["layers", *map(str, sorted(layers))])


Fit = Callable[[SplitFeatures, list[Group], int], list[LayerResult]]


@dataclass(frozen=True)
class ProbeMethod:
    """One way to fit a classifier on layer features.

    Args:
        name: as users type it.
        chosen: what is chosen on validation; names a column of probe.csv.
        how: a line for probe.json.
        probe: results of some groups of layers.
        pixels: the same on raw pixels, to compare with; None where that is left to other methods.
        settings: choices of this method alone that change its numbers.
    """

    name: str
    chosen: str
    how: str
    probe: Callable[[ProbeTask, list[Group]], list[LayerResult]]
    pixels: Callable[[ProbeTask], LayerResult] | None = None
    settings: Callable[[ProbeTask], dict[str, Any]] = lambda task: {}


@dataclass(frozen=True)
class MethodResults:
    """One method's results: every layer, raw pixels where it probes them, and a concatenation where asked for."""

    method: ProbeMethod
    layers: list[LayerResult]
    pixels: LayerResult | None = None
    concat: LayerResult | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def run_method(method: ProbeMethod, task: ProbeTask) -> MethodResults:
    """Probe every layer by one method, adjacent layers together where asked for, and raw pixels; print the time."""
    started = time.perf_counter()
    single = method.probe(task, [(layer,) for layer in task.layers])
    wide = None
    if task.options.concat:
        around = window(best_layer(single).layer, task.options.concat, task.loaded.module.core.n_layers)
        wide = method.probe(task, [tuple(around)])[0]
    pixels = method.pixels(task) if method.pixels else None
    print(f"{method.name}: {time.perf_counter() - started:.1f} s")
    return MethodResults(method, single, pixels, wide, method.settings(task))


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
    """Probe raw pixels, `(1, N, 3 R R)` in 0..1."""
    splits: SplitFeatures = {}
    for name in SPLITS:
        batches = [(images.flatten(1).float() / 255, labels) for images, labels in task.data.loader(name)]
        splits[name] = (torch.cat([b[0] for b in batches])[None], torch.cat([b[1] for b in batches]))
    return in_memory(fit, task, splits, [(RAW_PIXELS,)])[0]


def by_sgd(task: ProbeTask, groups: list[Group]) -> list[LayerResult]:
    """All groups of layers and all rates in one training: over the images, or over features that never change."""
    how, options = task.options.features, task.options
    together = [list(group) for group in groups]
    recipe = SGDRecipe(together, how, task.classes, epochs=options.epochs, standardise=options.standardise)
    stored: dict[str, LabelledImages] | None = None
    if task.features is not None and not task.changing:
        stored = {name: StoredFeatures(task.features, name, recipe.layers) for name in SPLITS}
    return sgd_probe(task.loaded.module, task.data, recipe, task.training(recipe.layers), task.compute, stored)


def sgd_settings(task: ProbeTask) -> dict[str, Any]:
    """Epochs, and whether features were computed anew."""
    return {"epochs": task.options.epochs, "images": "anew in every epoch" if task.changing else "stored features"}


def forget_training(task: ProbeTask, results: list[MethodResults]) -> None:
    """Remove the sgd probe's checkpoints, and nothing else, once its results are written."""
    for found in results:
        if found.method is SGD:
            for layers in [task.layers, *([list(found.concat.layers)] if found.concat else [])]:
                remove_own(task.training(layers), STATE)
    remove_own(task.folder / "sgd", ())


LBFGS = ProbeMethod(
    "lbfgs",
    "strength",
    "logistic regression by L-BFGS; penalty of best validation accuracy among 1e-1 ... 1e-6, refitted on train + val",
    partial(on_stored_features, lbfgs_layers),
    partial(on_pixels, lbfgs_layers),
)
SGD = ProbeMethod(
    "sgd",
    "rate",
    "logistic regression by SGD with momentum 0.9 and a cosine; rate of best validation accuracy; not refitted",
    by_sgd,
    settings=sgd_settings,
)
KNN = ProbeMethod(
    "knn",
    "k",
    "k nearest neighbours by cosine, majority; k of best validation accuracy; tested with train + val",
    partial(on_stored_features, knn_layers),
    partial(on_pixels, knn_layers),
)
METHODS = {method.name: method for method in (LBFGS, SGD, KNN)}


def subsets_of(data: ImageDataModule, options: ProbeOptions) -> dict[int, list[list[int]]]:
    """For each number of labels a class, the training images of each subset, as indices into the training split."""
    choose = partial(few_per_class, data.images("train").labels, option="--labels_per_class")
    counts = options.labels_per_class or []
    return {count: [choose(count, seed) for seed in range(options.subsets)] for count in counts}


def low_data(task: ProbeTask, few: dict[int, list[list[int]]]) -> list[dict[str, Any]]:
    """Mean and deviation of L-BFGS probes over the subsets of each size (paper, section 4.5)."""
    rows, store, standardised = [], task.features, task.options.standardise
    for count, seeds in few.items():
        assert store is not None
        found = []
        for indices in seeds:
            groups = store.in_turn(task.layers)
            parts = [probe_subset(store.splits(some), indices, some, task.classes, standardised) for some in groups]
            found.append(best_layer(parts))
        rows.append({**summary(count, found), "layers": task.layers})
    return rows


def subset_indices(data: ImageDataModule, few: dict[int, list[list[int]]]) -> dict[str, list[list[int]]]:
    """The same subsets as indices into all labelled training images, whatever was split off for validation."""
    kept = data.train_indices
    return {str(count): [[kept[index] for index in one] for one in seeds] for count, seeds in few.items()}
