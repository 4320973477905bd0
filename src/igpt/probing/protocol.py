"""The probe protocol: choose on validation, refit on training + validation, one look at the test (section 3.1)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from igpt.probing.knn import knn_layer
from igpt.probing.lbfgs import fit_probes

STRENGTHS = [10.0**-e for e in (1, 2, 3, 4, 5, 6)]
Method = Literal["lbfgs", "sgd", "knn"]
CHOSEN = {"lbfgs": "strength", "sgd": "rate", "knn": "k"}  # what each method chooses on validation
HOW = {
    "lbfgs": "logistic regression by L-BFGS; penalty of best validation accuracy among 1e-1 ... 1e-6, refitted on "
    "train + val",
    "sgd": "logistic regression by SGD with momentum 0.9 and a cosine; rate of best validation accuracy; not refitted",
    "knn": "k nearest neighbours by cosine, majority; k of best validation accuracy; tested with train + val",
}
SplitFeatures = dict[str, tuple[Tensor, Tensor]]
Group = tuple[int, ...]  # a layer, or several whose features stand one after another


@dataclass(frozen=True)
class LayerResult:
    """What a probe of one layer reached; accuracies are shares of 1.

    `chosen` is the penalty, rate or number of neighbours. `layers` has several entries where their features are
    concatenated.
    """

    layers: Group
    chosen: float
    val_accuracy: float
    test_accuracy: float
    train_accuracy: float | None = None

    @classmethod
    def of(cls, row: dict[str, Any], method: Method) -> "LayerResult":
        """What `row` gave, as it was."""
        layers = tuple(row["layers"]) if "layers" in row else (row["layer"],)
        accuracies = (row["val_accuracy"], row["test_accuracy"], row.get("train_accuracy"))
        return cls(layers, row[CHOSEN[method]], *accuracies)

    @property
    def layer(self) -> int:
        """The layer's number, of the first one where there are several."""
        return self.layers[0]

    def row(self, method: Method) -> dict[str, Any]:
        """As plain data, for JSON and CSV."""
        chosen = {CHOSEN[method]: int(self.chosen) if method == "knn" else self.chosen}
        accuracies = {"val_accuracy": self.val_accuracy, "test_accuracy": self.test_accuracy}
        trained = {} if self.train_accuracy is None else {"train_accuracy": self.train_accuracy}
        name = {"layer": self.layer} if len(self.layers) == 1 else {"layers": list(self.layers)}
        return {**name, **chosen, **accuracies, **trained}


def probe_layers(
    splits: SplitFeatures, groups: list[Group], num_classes: int, method: Method = "lbfgs", standardised: bool = True
) -> list[LayerResult]:
    """Probe features that lie in memory, by L-BFGS or k-NN.

    Args:
        splits: "train", "val", "test" to features float `(L, N, D)` and labels int64 `(N,)`.
        groups: names of the L rows of features, for the results.
        standardised: shift and scale the features to mean 0 and deviation 1 on the training split first.
    """
    if standardised:
        scaled = standardise(splits["train"][0], [features for features, _ in splits.values()])
        splits = {name: (part, splits[name][1]) for name, part in zip(splits, scaled, strict=True)}
    if method == "knn":
        return [LayerResult(group, *knn_row(splits, index)) for index, group in enumerate(groups)]
    return lbfgs_layers(splits, groups, num_classes)


def lbfgs_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Logistic regression on every layer.

    The strength is the one of `STRENGTHS` with the best validation accuracy (on a tie the stronger penalty); the probe
    is then fitted again on train + val with it, and its test accuracy reported.
    """
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    probes = fit_probes(train, train_labels, STRENGTHS, num_classes)
    val_accuracy = accuracy(probes.logits(val), val_labels)  # (L, S)
    best = val_accuracy.argmax(1)
    both_labels = torch.cat([train_labels, val_labels])
    results = []
    for index, group in enumerate(groups):
        chosen = int(best[index])
        both = torch.cat([train[index : index + 1], val[index : index + 1]], dim=1)
        probe = fit_probes(both, both_labels, [STRENGTHS[chosen]], num_classes)
        results.append(
            LayerResult(
                group,
                STRENGTHS[chosen],
                float(val_accuracy[index, chosen]),
                float(accuracy(probe.logits(test[index : index + 1]), test_labels)),
                float(accuracy(probe.logits(both), both_labels)),
            )
        )
    return results


def knn_row(splits: SplitFeatures, index: int) -> tuple[float, float, float]:
    """k, validation and test accuracy of one row of features."""
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    found = knn_layer(train[index], train_labels, val[index], val_labels, test[index], test_labels)
    return found.k, found.val_accuracy, found.test_accuracy


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


def standardise(reference: Tensor, all_features: list[Tensor]) -> list[Tensor]:
    """Shift and scale every feature to mean 0 and deviation 1 on `reference (L, N, D)`; constant ones become 0."""
    mean = reference.mean(1, keepdim=True)
    deviation = reference.std(1, keepdim=True, correction=0)
    scale = torch.where(deviation > 1e-6, 1 / deviation.clamp(min=1e-6), 0.0)
    return [(features - mean) * scale for features in all_features]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of right predictions, `(...)`, from logits `(..., N, K)`."""
    return (logits.argmax(-1) == labels).float().mean(-1)
