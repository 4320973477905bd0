"""The work behind `igpt probe`: each method on every layer, neighbours together, pixels, subsets with few labels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from igpt.data import SPLITS, ImageDataModule, LabelledImages, few_per_class
from igpt.model import FeatureOptions
from igpt.modules import PixelModule
from igpt.probing.extract import StoredFeatures, stored_features
from igpt.probing.lowdata import probe_subset, summary
from igpt.probing.protocol import Group, LayerResult, Method, SplitFeatures, best_layer, joined, probe_layers, window
from igpt.probing.results import RAW_PIXELS, MethodResults
from igpt.probing.sgd_probe import STATE, sgd_probe
from igpt.probing.store import FeatureStore, FeatureType
from igpt.system import Compute, remove_own

Probe = Callable[[list[Group]], list[LayerResult]]


@dataclass(frozen=True)
class Asked:
    """What every method of one command probes, and how.

    Args:
        module: whose features are probed.
        data: labelled, and prepared.
        classes: how many the labels count.
        layers: in ascending order.
        concat: so many neighbours of the best layer are also probed together; None for none.
        how: what counts as a layer's features.
        standardise: features, by the training split.
        epochs: of the sgd probe.
        folder: of the results.
        compute: where the network runs, and in which precision.
    """

    module: PixelModule
    data: ImageDataModule
    classes: int
    layers: list[int]
    concat: int | None
    how: FeatureOptions
    standardise: bool
    epochs: int
    folder: Path
    compute: Compute

    @property
    def changing(self) -> bool:
        """Whether the features of an image differ from epoch to epoch."""
        return self.data.images("train").augments or self.how.masks > 0

    def training(self, layers: list[int]) -> Path:
        """Where a killed sgd probe of these layers is gone on from."""
        return self.folder / "sgd" / "_".join(["layers", *map(str, sorted(layers))])


def features_for(asked: Asked, ckpt: str, store: str | None, dtype: FeatureType) -> FeatureStore:
    """The features of all layers, from `store` or from beside the results, made where they are not there yet.

    Raises:
        UserError: see `stored_features`.
    """
    started = time.perf_counter()
    place = Path(store) if store else asked.folder / "features"
    features, reused = stored_features(
        asked.module,
        ckpt,
        asked.data,
        asked.layers,
        asked.how,
        folder=place,
        own=store is not None,
        dtype=dtype,
        compute=asked.compute,
    )
    told = "reused" if reused else f"written in {time.perf_counter() - started:.1f} s"
    print(f"features of {len(asked.layers)} layers: {place}, {features.bytes / 1e6:,.1f} MB, {told}")
    return features


def run_method(method: Method, asked: Asked, features: FeatureStore | None) -> MethodResults:
    """All that one method finds, and a line about its time.

    Args:
        features: None only where the method is sgd, and trains on images anew in every epoch.

    Raises:
        UserError: see `sgd_probe`.
    """
    started = time.perf_counter()
    if method == "sgd":
        results = trained(asked, features)
    else:
        assert features is not None
        results = fitted(method, asked, features)
    print(f"{method}: {time.perf_counter() - started:.1f} s")
    return results


def trained(asked: Asked, features: FeatureStore | None) -> MethodResults:
    """By SGD, on stored features where these never change; raw pixels are left to the other methods."""
    fit = partial(by_sgd, asked, None if asked.changing else features)
    settings = {"epochs": asked.epochs, "images": "anew in every epoch" if asked.changing else "stored features"}
    return probe_method("sgd", fit, asked, None, settings)


def fitted(method: Method, asked: Asked, features: FeatureStore) -> MethodResults:
    """By a method that takes all stored features of a layer at once, and raw pixels to compare with."""
    fit = partial(from_store, features, asked.classes, method, asked.standardise)
    return probe_method(method, fit, asked, pixel_probe(asked.data, asked.classes, method, asked.standardise), {})


def probe_method(
    name: Method, fit: Probe, asked: Asked, pixels: LayerResult | None, settings: dict[str, Any]
) -> MethodResults:
    """Every layer by one method, and the neighbours of the best one together where `concat` asks for them."""
    single = fit([(layer,) for layer in asked.layers])
    wide = None
    if asked.concat:
        wide = fit([tuple(window(best_layer(single).layer, asked.concat, asked.module.core.n_layers))])[0]
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


def by_sgd(asked: Asked, features: FeatureStore | None, groups: list[Group]) -> list[LayerResult]:
    """All groups of layers and all rates in one training: over the images, or over features that never change."""
    wanted = sorted({layer for group in groups for layer in group})
    stored: dict[str, LabelledImages] | None = None
    if features is not None:
        stored = {name: StoredFeatures(features, name, wanted) for name in SPLITS}
    found = sgd_probe(
        asked.module,
        asked.data,
        [list(group) for group in groups],
        asked.how,
        num_classes=asked.classes,
        epochs=asked.epochs,
        standardise=asked.standardise,
        folder=asked.training(wanted),
        compute=asked.compute,
        stored=stored,
    )
    return [LayerResult(tuple(one.layers), one.rate, one.val_accuracy, one.test_accuracy) for one in found]


def forget_training(asked: Asked, results: list[MethodResults]) -> None:
    """Remove what a killed sgd probe would have gone on from, once its results are written; and nothing else."""
    for found in results:
        if found.method == "sgd":
            wide = [list(found.concat.layers)] if found.concat else []
            for layers in [asked.layers, *wide]:
                remove_own(asked.training(layers), STATE)
    remove_own(asked.folder / "sgd", ())


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
    return {**summary(count, found), "layers": layers}
