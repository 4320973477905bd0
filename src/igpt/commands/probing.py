"""The work behind `igpt probe`: each method on every layer, neighbours together, pixels, subsets with few labels."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from igpt.commands.extract import StoredFeatures
from igpt.commands.sgd_probe import sgd_probe
from igpt.data import SPLITS, ImageDataModule, LabelledImages, few_per_class
from igpt.features import FeatureOptions
from igpt.modules import PixelModule
from igpt.probing.lowdata import probe_subset, summary
from igpt.probing.protocol import Group, LayerResult, Method, SplitFeatures, best_layer, joined, probe_layers, window
from igpt.probing.store import FeatureStore
from igpt.probing.tables import RAW_PIXELS, MethodResults

Probe = Callable[[list[Group]], list[LayerResult]]


def probe_method(
    name: Method,
    fit: Probe,
    layers: list[int],
    n_layers: int,
    concat: int | None,
    pixels: LayerResult | None,
    settings: dict[str, Any],
) -> MethodResults:
    """Every layer by one method, and the neighbours of the best one together where `concat` asks for them."""
    single = fit([(layer,) for layer in layers])
    wide = fit([tuple(window(best_layer(single).layer, concat, n_layers))])[0] if concat else None
    return MethodResults(name, single, pixels, wide, settings)


def from_store(
    features: FeatureStore, classes: int, method: Method, standardised: bool, groups: list[Group]
) -> list[LayerResult]:
    """Probe stored features, as many layers at once as fit into memory."""
    if len(groups) == 1 and len(groups[0]) > 1:
        return probe_layers(joined(features.splits(list(groups[0]))), groups, classes, method, standardised)
    results: list[LayerResult] = []
    for some in features.in_turn([group[0] for group in groups]):
        results += probe_layers(features.splits(some), [(layer,) for layer in some], classes, method, standardised)
    return results


def by_sgd(
    module: PixelModule,
    data: ImageDataModule,
    how: FeatureOptions,
    features: FeatureStore | None,
    groups: list[Group],
    *,
    folder: Path,
    **options: Any,
) -> list[LayerResult]:
    """All groups of layers and all rates in one training: over the images, or over features that never change."""
    wanted = sorted({layer for group in groups for layer in group})
    stored: dict[str, LabelledImages] | None = None
    if features is not None:
        stored = {name: StoredFeatures(features, name, wanted) for name in SPLITS}
    folder = folder / "_".join(["layers", *map(str, wanted)])
    found = sgd_probe(module, data, [list(group) for group in groups], how, folder=folder, stored=stored, **options)
    return [LayerResult(tuple(one.layers), one.rate, one.val_accuracy, one.test_accuracy) for one in found]


def pixel_probe(data: ImageDataModule, classes: int, method: Method, standardised: bool) -> LayerResult:
    """The same probe on the pixels themselves, to compare with."""
    return probe_layers(raw_pixels(data), [(RAW_PIXELS,)], classes, method, standardised)[0]


def raw_pixels(data: ImageDataModule) -> SplitFeatures:
    """The pixels themselves as features, `(1, N, 3 R R)` in 0..1."""
    splits: SplitFeatures = {}
    for name in SPLITS:
        batches = [(images.flatten(1).float() / 255, labels) for images, labels in data.loader(name)]
        splits[name] = (torch.cat([b[0] for b in batches])[None], torch.cat([b[1] for b in batches]))
    return splits


def subsets_of(data: ImageDataModule, counts: list[int], subsets: int) -> dict[int, list[list[int]]]:
    """For each number of labels a class, the training images of each subset, as indices into the training split."""
    choose = partial(few_per_class, data.images("train").labels, option="--labels_per_class")
    return {count: [choose(count, seed) for seed in range(subsets)] for count in counts}


def subset_indices(data: ImageDataModule, few: dict[int, list[list[int]]]) -> dict[str, list[list[int]]]:
    """The same subsets as indices into all labelled training images, whatever was split off for validation."""
    kept = data.train_indices
    return {str(count): [[kept[index] for index in one] for one in seeds] for count, seeds in few.items()}


def low_data_row(
    features: FeatureStore,
    count: int,
    seeds: list[list[int]],
    layers: list[int],
    classes: int,
    standardised: bool,
) -> dict[str, Any]:
    """Mean and deviation over the subsets of one size."""
    found = []
    for seed, indices in enumerate(seeds):
        parts = [
            probe_subset(features.splits(some), indices, some, classes, seed, standardised)
            for some in features.in_turn(layers)
        ]
        found.append(max(parts, key=lambda part: (part.val_accuracy, -part.layer)))
    return summary(count, found)
