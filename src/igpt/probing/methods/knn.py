"""Cosine k-NN classifier on one layer's features."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from igpt.palette import faiss_behind_torch
from igpt.probing.protocol import Group, LayerResult, ProbeMethod, SplitFeatures, on_features
from igpt.system import UserError, with_progress

KS = (1, 5, 10, 20)
ROWS = 4096  # images at once, which bounds the memory beside the index


def knn_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Cosine k-NN on every layer; see `knn_layer`."""
    return [
        knn_layer(group, {name: (features[index], labels) for name, (features, labels) in splits.items()})
        for index, group in enumerate(with_progress(groups, len(groups), "layers: knn", quiet=True))
    ]


def knn_layer(group: Group, splits: SplitFeatures, ks: Sequence[int] = KS) -> LayerResult:
    """Choose k by validation accuracy with neighbours from train, then test it with neighbours from train + val.

    On a tie the smaller k is chosen; those above the number of training images are left out. `splits` holds features
    `(N, D)` and labels of the layer that `group` names.

    Raises:
        UserError: no k is left, or a feature is infinite or no number.
    """
    (train, labels), val, test = (splits[name] for name in ("train", "val", "test"))
    possible = sorted({k for k in ks if 1 <= k <= len(train)})
    if not possible:
        raise UserError(f"--ks {','.join(map(str, ks))}: no k lies between 1 and the {len(train)} training images")
    neighbours = Neighbours(train.shape[1])
    neighbours.add(train, labels)
    scores: dict[float, float] = dict(zip(possible, neighbours.accuracies(*val, possible), strict=True))
    chosen = max(possible, key=lambda k: (scores[k], -k))
    neighbours.add(*val)
    return LayerResult(group, chosen, scores[chosen], neighbours.accuracies(*test, [chosen])[0], tried=scores)


class Neighbours:
    """Exact cosine search among labelled features of one layer, by FAISS."""

    def __init__(self, dimensions: int) -> None:
        self.index = faiss_behind_torch().IndexFlatIP(dimensions)
        self.labels = torch.empty(0, dtype=torch.int64)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features `(N, D)` with labels `(N,)`."""
        for part in features.split(ROWS):
            self.index.add(directions(part))
        self.labels = torch.cat([self.labels, labels.cpu()])

    def classes(self, features: Tensor, ks: list[int]) -> Tensor:
        """Predicted classes int64 `(len(ks), N)` of features `(N, D)`, from one search for the largest k."""
        num_classes = int(self.labels.max()) + 1
        found = []
        for part in features.split(ROWS):
            similarity, nearest = self.index.search(directions(part), max(ks))
            votes = self.labels[torch.from_numpy(nearest)]
            found.append(torch.stack([vote(votes[:, :k], torch.from_numpy(similarity), num_classes) for k in ks]))
        return torch.cat(found, dim=1)

    def accuracies(self, features: Tensor, labels: Tensor, ks: list[int]) -> list[float]:
        """Accuracy for each k on features `(N, D)` with labels `(N,)`."""
        shares: list[float] = (self.classes(features, ks) == labels.cpu()).double().mean(1).tolist()
        return shares


def vote(labels: Tensor, similarity: Tensor, num_classes: int) -> Tensor:
    """Majority class among each image's k neighbours, int64 `(N,)`.

    Ties go to the larger sum of similarities, then to the lower class. `labels (N, k)` are the neighbours'; of
    `similarity (N, k or more)` the first k count.
    """
    counts = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    sums = torch.zeros_like(counts)
    counts.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.float64))
    sums.scatter_add_(1, labels, similarity[:, : labels.shape[1]].double())
    most = counts == counts.amax(1, keepdim=True)
    return sums.masked_fill(~most, -torch.inf).argmax(1)


def directions(features: Tensor) -> NDArray[np.float32]:
    """Features `(N, D)` scaled to unit length, float32; zero vectors stay zero.

    Raises:
        UserError: a feature is not finite.
    """
    unit = F.normalize(features.float(), dim=1).cpu().contiguous()
    if not torch.isfinite(unit).all():
        raise UserError("--ckpt: some features are infinite or no numbers; the run was lost, use an earlier checkpoint")
    array: NDArray[np.float32] = unit.numpy()
    return array


KNN = ProbeMethod(
    "knn",
    "k",
    "k nearest neighbours by cosine, majority; k of best validation accuracy; tested with train + val",
    **on_features(knn_layers),
)
