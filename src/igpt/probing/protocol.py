"""The probe protocol: choose on validation, refit on training + validation, one look at the test (section 3.1)."""

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
    """Logistic regression on every layer.

    The penalty is the one of `L2` with the best validation accuracy (on a tie the larger one); the probe is then fitted
    again on train + val with it, and its test accuracy reported.

    Args:
        splits: features of the L layers.
        groups: names of the L layers.
        num_classes: of the labels.
    """
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    val_accuracy = accuracy(fit_probes(train, train_labels, L2, num_classes).logits(val), val_labels)  # (L, S)
    best = val_accuracy.argmax(1)
    both_labels = torch.cat([train_labels, val_labels])
    results = []
    for index, group in enumerate(groups):
        chosen = int(best[index])
        both = torch.cat([train[index : index + 1], val[index : index + 1]], dim=1)
        probe = fit_probes(both, both_labels, [L2[chosen]], num_classes)
        tested = accuracy(probe.logits(test[index : index + 1]), test_labels)
        fitted = accuracy(probe.logits(both), both_labels)
        results.append(LayerResult(group, L2[chosen], float(val_accuracy[index, chosen]), float(tested), float(fitted)))
    return results


def knn_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Cosine k-NN on every layer: k is chosen on validation among neighbours in train, and tested with train + val."""
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    found = [
        knn_layer(train[index], train_labels, val[index], val_labels, test[index], test_labels)
        for index in range(len(groups))
    ]
    return [
        LayerResult(group, one.k, one.val_accuracy, one.test_accuracy) for group, one in zip(groups, found, strict=True)
    ]


@dataclass(frozen=True)
class SubsetResult:
    """The best probe of one subset: layer and penalty are those of best validation accuracy."""

    subset_seed: int
    layer: int
    strength: float
    val_accuracy: float
    test_accuracy: float


def probe_subset(
    splits: SplitFeatures, indices: list[int], layers: list[int], num_classes: int, seed: int, standardised: bool
) -> SubsetResult:
    """Logistic regression on some training images: layer and penalty chosen on validation, one look at the test (4.5).

    The whole validation split chooses; it is not folded into training, which would end the want of labels. Ties go to
    the lower layer and the larger penalty.

    Args:
        splits: features of the L layers.
        indices: which training images have labels.
        layers: names of the L layers.
        num_classes: of the labels.
        seed: of the subset, for the result.
        standardised: shift and scale the features by mean and deviation of these images.
    """
    few, labels = splits["train"][0][:, indices], splits["train"][1][indices]
    val, test = splits["val"][0], splits["test"][0]
    if standardised:
        few, val, test = standardise(few, [few, val, test])
    probes = fit_probes(few, labels, L2, num_classes)
    val_accuracy = accuracy(probes.logits(val), splits["val"][1])  # (L, S)
    test_accuracy = accuracy(probes.logits(test), splits["test"][1])
    layer, l2 = divmod(int(val_accuracy.argmax()), len(L2))
    return SubsetResult(seed, layers[layer], L2[l2], float(val_accuracy[layer, l2]), float(test_accuracy[layer, l2]))


def summary(labels_per_class: int, results: list[SubsetResult]) -> dict[str, Any]:
    """Mean and deviation over the subsets (0 where there is one only), with each of them, as plain data."""
    tested = [result.test_accuracy for result in results]
    return {
        "labels_per_class": labels_per_class,
        "subsets": len(results),
        "mean_test_accuracy": statistics.fmean(tested),
        "std_test_accuracy": statistics.stdev(tested) if len(tested) > 1 else 0.0,
        "runs": [vars(result) for result in results],
    }


def standardised_splits(splits: SplitFeatures) -> SplitFeatures:
    """All splits with every feature shifted and scaled to mean 0 and deviation 1 on the training split."""
    scaled = standardise(splits["train"][0], [features for features, _ in splits.values()])
    return {name: (part, splits[name][1]) for name, part in zip(splits, scaled, strict=True)}


def standardise(reference: Tensor, all_features: list[Tensor]) -> list[Tensor]:
    """Shift and scale every feature to mean 0 and deviation 1 on `reference (L, N, D)`; constant ones become 0."""
    mean = reference.mean(1, keepdim=True)
    std = reference.std(1, keepdim=True, correction=0)
    scale = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 0.0)
    return [(features - mean) * scale for features in all_features]


def joined(splits: SplitFeatures) -> SplitFeatures:
    """The features of several layers one after another, `(L, N, D)` to `(1, N, L * D)` (section 4.3's wide probes)."""
    return {name: (part.transpose(0, 1).flatten(1)[None], labels) for name, (part, labels) in splits.items()}


def window(best: int, width: int, n_layers: int) -> list[int]:
    """`width` adjacent layers around `best`, moved inwards where they would leave 0..n_layers."""
    first = min(max(0, best - width // 2), n_layers + 1 - width)
    return list(range(first, first + width))


def best_layer(results: list[LayerResult]) -> LayerResult:
    """The layer with the best validation accuracy; the test plays no part in the choice. Ties go to the lower layer."""
    return max(results, key=lambda result: (result.val_accuracy, -result.layer))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of right predictions, `(...)`, from logits `(..., N, K)`."""
    return (logits.argmax(-1) == labels).float().mean(-1)
