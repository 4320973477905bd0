"""Probes from few labels: every subset is fitted alone, and what is reported is mean and deviation (section 4.5)."""

import statistics
from dataclasses import dataclass
from typing import Any

from igpt.probing.lbfgs import fit_probes
from igpt.probing.protocol import STRENGTHS, SplitFeatures, accuracy, standardise


@dataclass(frozen=True)
class SubsetResult:
    """The best probe of one subset: layer and strength are those of best validation accuracy."""

    subset_seed: int
    layer: int
    strength: float
    val_accuracy: float
    test_accuracy: float


def probe_subset(
    splits: SplitFeatures, indices: list[int], layers: list[int], num_classes: int, seed: int, standardised: bool
) -> SubsetResult:
    """Fit all layers and strengths on some training images; choose one on validation, and look at the test once.

    The whole validation split chooses; it is not folded into training, which would end the want of labels. Ties go to
    the lower layer and the stronger penalty.

    Args:
        splits: "train", "val", "test" to features float `(L, N, D)` and labels `(N,)`.
        indices: which training images have labels.
        layers: names of the L layers.
        seed: of the subset, for the result.
        standardised: shift and scale the features by mean and deviation of these images.
    """
    few, labels = splits["train"][0][:, indices], splits["train"][1][indices]
    val, test = splits["val"][0], splits["test"][0]
    if standardised:
        few, val, test = standardise(few, [few, val, test])
    probes = fit_probes(few, labels, STRENGTHS, num_classes)
    val_accuracy = accuracy(probes.logits(val), splits["val"][1])  # (L, S)
    test_accuracy = accuracy(probes.logits(test), splits["test"][1])
    layer, strength = divmod(int(val_accuracy.argmax()), len(STRENGTHS))
    return SubsetResult(
        seed,
        layers[layer],
        STRENGTHS[strength],
        float(val_accuracy[layer, strength]),
        float(test_accuracy[layer, strength]),
    )


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
