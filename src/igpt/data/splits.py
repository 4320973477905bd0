"""Training, validation and test splits, each a function of labels and seeds alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal

import numpy as np
from torch import Tensor

from igpt.system import UserError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def stratified_split(labels: Sequence[int] | Tensor, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices that stay and indices split off: `round(share * N)` in all, each class its share to within one."""
    classes = np.asarray(labels)
    rng = np.random.default_rng(seed)
    values, counts = np.unique(classes, return_counts=True)
    quota = np.floor(counts * share).astype(int)
    missing = round(len(classes) * share) - quota.sum()
    fraction = counts * share - quota
    quota[np.argsort(-fraction, kind="stable")[:missing]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(classes == value))[:count] for value, count in zip(values, quota, strict=True)
    ]
    off = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(classes)), off).tolist(), off.tolist()


def few_per_class(
    labels: Sequence[int] | Tensor, count: int, seed: int, option: str = "split.labels_per_class"
) -> list[int]:
    """Indices of `count` images of every class, chosen by the seed: the low-data subsets of the paper.

    Raises:
        UserError: a class has fewer images than `count`, which `option` gave.
    """
    classes = np.asarray(labels)
    values, counts = np.unique(classes, return_counts=True)
    if counts.min() < count:
        scarce = int(values[counts.argmin()])
        raise UserError(f"{option} {count}: class {scarce} has only {int(counts.min())} training images")
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(classes == value))[:count] for value in values]
    return list(np.sort(np.concatenate(chosen)).tolist())


def sampling_error(share: float, images: int) -> float:
    """One standard error of an accuracy, both as shares of 1, that was measured on so many images."""
    return math.sqrt(max(0.0, share * (1 - share)) / images)


def spread(labels: Sequence[int] | Tensor, count: int, seed: int = 0) -> list[int]:
    """Indices of `count` images to show, a random one of each class in turn; fewer where there are fewer."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(labels))[: max(10_000, 50 * count)]  # of millions a part is enough
    classes = np.asarray(labels)[some]
    by_class = [some[classes == value].tolist() for value in np.unique(classes)]
    turns = zip_longest(*by_class)
    return list(islice((index for turn in turns for index in turn if index is not None), count))


@dataclass(frozen=True)
class SplitOptions:
    """How the labelled training images are used.

    Args:
        val_share: share split off for validation, stratified by class (10 % in the paper, 4 % for ImageNet).
        fold_validation: train on the validation images too, as for the paper's final numbers; they still validate.
        labels_per_class: train on so many images of each class only; None is all.
        subset_seed: which images these are.
    """

    val_share: float = 0.1
    fold_validation: bool = False
    labels_per_class: int | None = None
    subset_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise UserError(f"split.val_share {self.val_share} must lie between 0 and 1")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise UserError(f"split.labels_per_class {self.labels_per_class} must be at least 1")

    @classmethod
    def of(cls, value: "SplitOptions | dict[str, Any]") -> "SplitOptions":
        """Accept options or their plain dict, as checkpoints hold them."""
        return value if isinstance(value, cls) else cls(**value)  # type: ignore[arg-type]
