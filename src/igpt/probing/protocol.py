"""The probe protocol: strength by validation, refit on training + validation, one look at the test (section 3.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from igpt.probing.lbfgs import fit_probes

STRENGTHS = [10.0**-e for e in (1, 2, 3, 4, 5, 6)]
SplitFeatures = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LayerResult:
    """What one layer reached; accuracies are shares of 1."""

    layer: int
    strength: float
    val_accuracy: float
    test_accuracy: float
    train_accuracy: float


def probe_layers(splits: SplitFeatures, layers: list[int], num_classes: int) -> list[LayerResult]:
    """Probe every layer.

    Args:
        splits: "train", "val", "test" to features float `(L, N, D)` and labels int64 `(N,)`.
        layers: names of the L layers, for the results.

    The strength is the one of `STRENGTHS` with the best validation accuracy (on a tie the stronger penalty); the probe
    is then fitted again on train + val with it, and its test accuracy reported.
    """
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    train, val, test = standardise(train, [train, val, test])
    probes = fit_probes(train, train_labels, STRENGTHS, num_classes)
    val_accuracy = accuracy(probes.logits(val), val_labels)  # (L, S)
    best = val_accuracy.argmax(1)
    both, both_labels = torch.cat([train, val], dim=1), torch.cat([train_labels, val_labels])
    results = []
    for index, layer in enumerate(layers):
        chosen = int(best[index])
        probe = fit_probes(both[index : index + 1], both_labels, [STRENGTHS[chosen]], num_classes)
        results.append(
            LayerResult(
                layer=layer,
                strength=STRENGTHS[chosen],
                val_accuracy=float(val_accuracy[index, chosen]),
                test_accuracy=float(accuracy(probe.logits(test[index : index + 1]), test_labels)),
                train_accuracy=float(accuracy(probe.logits(both[index : index + 1]), both_labels)),
            )
        )
    return results


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
