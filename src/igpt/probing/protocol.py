"""The probe protocol: choose on validation, refit on train + val, test once (paper, section 3.1)."""

import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from igpt.probing.knn import knn_layer
from igpt.probing.lbfgs import fit_probes

L2 = [10.0**-e for e in (1, 2, 3, 4, 5, 6)]  # penalties to choose from
SplitFeatures = dict[str, tuple[Tensor, Tensor]]  # "train", "val", "test": features float (L, N, D), labels int64 (N,)
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
        return {**name, chosen: int(self.chosen) if chosen == "k" else self.chosen, **accuracies, **trained}


def lbfgs_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Logistic regression by L-BFGS on every layer.

    The penalty of `L2` with the best validation accuracy is chosen (the larger one on a tie), and the probe fitted
    again with it on train + val.

    Args:
        splits: features of the L layers.
        groups: names of the L layers.
        num_classes: K.
    """
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    val_accuracy = accuracy(fit_probes(train, train_labels, L2, num_classes).logits(val), val_labels)  # (L, S)
    best = val_accuracy.argmax(1)
    both_labels = torch.cat([train_labels, val_labels])
    results = []
    for index, (group, chosen) in enumerate(zip(groups, best.tolist(), strict=True)):
        layer = slice(index, index + 1)
        both = torch.cat([train[layer], val[layer]], dim=1)
        probe = fit_probes(both, both_labels, [L2[chosen]], num_classes)
        tested = accuracy(probe.logits(test[layer]), test_labels)
        fitted = accuracy(probe.logits(both), both_labels)
        results.append(LayerResult(group, L2[chosen], float(val_accuracy[index, chosen]), float(tested), float(fitted)))
    return results


def knn_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Cosine k-NN on every layer; see `knn_layer`."""
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    results = []
    for index, group in enumerate(groups):
        found = knn_layer(train[index], train_labels, val[index], val_labels, test[index], test_labels)
        results.append(LayerResult(group, found.k, found.val_accuracy, found.test_accuracy))
    return results


def probe_subset(
    splits: SplitFeatures, indices: list[int], layers: list[int], num_classes: int, standardised: bool
) -> LayerResult:
    """Logistic regression on few training images: layer and penalty are chosen on validation (paper, section 4.5).

    The validation split is not folded into training, where it would outnumber the few labels. Ties go to the lower
    layer and the larger penalty.

    Args:
        splits: features of the L layers.
        indices: which training images have labels.
        layers: names of the L layers.
        num_classes: K.
        standardised: whether to standardise the features by these images.
    """
    few, labels = splits["train"][0][:, indices], splits["train"][1][indices]
    val, test = splits["val"][0], splits["test"][0]
    if standardised:
        few, val, test = standardise(few, [few, val, test])
    probes = fit_probes(few, labels, L2, num_classes)
    val_accuracy = accuracy(probes.logits(val), splits["val"][1])  # (L, S)
    test_accuracy = accuracy(probes.logits(test), splits["test"][1])
    layer, l2 = divmod(int(val_accuracy.argmax()), len(L2))
    return LayerResult((layers[layer],), L2[l2], float(val_accuracy[layer, l2]), float(test_accuracy[layer, l2]))


def summary(labels_per_class: int, results: list[LayerResult]) -> dict[str, Any]:
    """Mean and standard deviation (0 for one subset) over the subsets, and each of them, as plain data."""
    tested = [result.test_accuracy for result in results]
    return {
        "labels_per_class": labels_per_class,
        "subsets": len(results),
        "mean_test_accuracy": statistics.fmean(tested),
        "std_test_accuracy": statistics.stdev(tested) if len(tested) > 1 else 0.0,
        "runs": [{"subset_seed": seed, **result.row("strength")} for seed, result in enumerate(results)],
    }


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
