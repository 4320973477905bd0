"""The registry of probe methods, and what `igpt probe` does with each of them.

A new method is one file with its `ProbeMethod`, named in `METHODS`.
"""

import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from igpt.data import ImageDataModule, few_per_class
from igpt.probing.methods.attentive_training import ATTENTIVE
from igpt.probing.methods.knn import KNN
from igpt.probing.methods.lbfgs import LBFGS, probe_subset
from igpt.probing.methods.sgd_training import SGD
from igpt.probing.protocol import (
    RAW_PIXELS,
    Group,
    LayerResult,
    ProbeMethod,
    ProbeOptions,
    ProbeTask,
    best_layer,
    pixel_splits,
    window,
)
from igpt.system import UserError, with_progress

METHODS = {method.name: method for method in (LBFGS, SGD, KNN, ATTENTIVE)}


def methods_named(names: str) -> list[ProbeMethod]:
    """The methods in the order given, with commas between them, or "all"; a UserError for what is none."""
    every = [name for name, method in METHODS.items() if method.in_all]
    asked = every if names == "all" else list(dict.fromkeys(names.split(",")))
    wrong = [name for name in asked if name not in METHODS]
    if wrong:
        known = ", ".join(METHODS)
        raise UserError(f"--method {','.join(wrong)}; choose from {known}, several with commas, or all")
    return [METHODS[name] for name in asked]


@dataclass(frozen=True)
class MethodResults:
    """One method's results: every layer, raw pixels where it probes them, and a concatenation where asked for."""

    method: ProbeMethod
    layers: list[LayerResult]
    pixels: LayerResult | None = None
    concat: LayerResult | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def forget(self, task: ProbeTask) -> None:
        """Remove what a killed probe would be resumed from, once these results are written."""
        single: list[Group] = [result.layers for result in self.layers]
        for groups in [single, [self.concat.layers]] if self.concat else [single]:
            self.method.forget(task, groups)


def run_method(method: ProbeMethod, task: ProbeTask) -> MethodResults:
    """Probe every layer by one method, adjacent layers together where asked for, and raw pixels; print the time."""
    started = time.perf_counter()
    single = method.probe(task, [(layer,) for layer in task.layers])
    wide = None
    if task.options.concat:
        around = window(best_layer(single).layer, task.options.concat, task.loaded.module.core.n_layers)
        wide = method.probe(task, [tuple(around)])[0]
    pixels = method.pixels(task) if method.pixels and task.data.token_stride == 1 else None  # VQ tokens have none
    print(f"{method.name}: {time.perf_counter() - started:.1f} s")
    return MethodResults(method, single, pixels, wide, method.settings(task))


def subsets_of(data: ImageDataModule, options: ProbeOptions) -> dict[int, list[list[int]]]:
    """For each number of labels a class, the training images of each subset, as indices into the training split."""
    choose = partial(few_per_class, data.images("train").labels, option="--labels_per_class")
    counts = options.labels_per_class or []
    return {count: [choose(count, seed) for seed in range(options.subsets)] for count in counts}


def low_data(task: ProbeTask, few: dict[int, list[list[int]]]) -> list[dict[str, Any]]:
    """Mean and deviation (0 for one) of L-BFGS probes over the subsets of each size (paper, section 4.5).

    Raw pixels stand beside the layers, from the same subsets.
    """
    rows, store, options = [], task.features, task.options
    pixels = pixel_splits(task.data) if few and task.data.token_stride == 1 else None
    for count, seeds in few.items():
        assert store is not None
        found, of_pixels = [], []
        for indices in with_progress(seeds, len(seeds), f"subsets: {count} labels a class", quiet=True):
            groups = store.in_turn(task.layers)
            how = task.classes, options.standardise
            found.append(best_layer([probe_subset(store.splits(some), indices, some, *how) for some in groups]))
            if pixels is not None:
                of_pixels.append(probe_subset(pixels, indices, [RAW_PIXELS], *how))
        tested = [result.test_accuracy for result in found]
        rows.append(
            {
                "labels_per_class": count,
                "subsets": len(found),
                "mean_test_accuracy": statistics.fmean(tested),
                "std_test_accuracy": statistics.stdev(tested) if len(tested) > 1 else 0.0,
                "runs": [{"subset_seed": seed, **result.row("strength")} for seed, result in enumerate(found)],
                "raw_pixels": [result.row("strength") for result in of_pixels],
                "layers": task.layers,
            }
        )
    return rows


def subset_indices(data: ImageDataModule, few: dict[int, list[list[int]]]) -> dict[str, list[list[int]]]:
    """The same subsets as indices into all labelled training images, whatever was split off for validation."""
    kept = data.train_indices
    return {str(count): [[kept[index] for index in one] for one in seeds] for count, seeds in few.items()}
