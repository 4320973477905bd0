"""Where the batches of a trained probe come from: the frozen network, or memory where features never change."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from igpt.data import (
    SPLITS,
    ChosenImages,
    ImageDataModule,
    LabelledImages,
    WatchedLoader,
    begin_worker,
    collate,
    rng_of,
)
from igpt.model import FeatureOptions
from igpt.modules import FEATURES
from igpt.probing.protocol import Probed
from igpt.system import Compute

T = TypeVar("T")
Features = tuple[Tensor, Tensor]  # of a batch: float `(L, B, ...)`, and labels `(B,)`


class FrozenFeatures:
    """Features of batches of images by a frozen network, which runs once a batch, whatever the number of layers.

    Training images come augmented and in a new order every epoch, others as they are. BERT's masks belong to the batch.

    Args:
        module: the network; it runs in the precision of `compute`, and its features leave as float32.
        layers: which of 0..L.
        how: norm, pooling and masks.
        pooled: features `(L, B, W)`; False gives each token's, `(L, B, T, D)`.
        stored: for each split its features in place of the images, float `(L, W)` each; the network is then not run.

    Raises:
        UserError: fewer training images than a batch.
    """

    def __init__(
        self,
        module: Probed,
        data: ImageDataModule,
        layers: list[int],
        how: FeatureOptions,
        compute: Compute,
        pooled: bool = True,
        stored: Mapping[str, LabelledImages] | None = None,
    ) -> None:
        self.core, self.data, self.layers, self.how, self.compute = module.core, data, layers, how, compute
        self.pooled = pooled
        self.images: Mapping[str, LabelledImages] = stored or {name: data.images(name) for name in SPLITS}
        self.loader = data.training_loader(self.images["train"])
        self.steps = self.loader.order.batches  # an epoch

    @torch.no_grad()
    def of(self, images: Tensor, *key: int) -> Tensor:
        """Features of images uint8 `(B, 3, R, R)`; floating `(B, L, W)` are features that were computed before."""
        images = images.to(self.compute.device)
        if images.is_floating_point():
            return images.transpose(0, 1).float()
        with self.compute.autocast():
            tokens, rng = self.core.encode(images), rng_of(FEATURES, *key)
            return self.core.features(tokens, self.layers, self.how, rng, pooled=self.pooled).float()

    def epoch(self, number: int) -> Iterator[Features]:
        """The batches of a training epoch."""
        self.loader.taken = number * self.steps
        for place, (images, labels) in enumerate(self.loader):
            yield self.of(images, SPLITS.index("train"), place, number), labels.to(self.compute.device)

    def split(self, name: str, chosen: Tensor | None = None) -> Iterator[Features]:
        """All images of a split, or the chosen ones, without augmentation."""
        images = self.images[name]
        some = images if chosen is None else ChosenImages(images, chosen.tolist())
        for place, (batch, labels) in enumerate(in_batches(self.data, some)):
            yield self.of(batch, SPLITS.index(name), place), labels.to(self.compute.device)

    def chosen(self, count: int) -> Tensor:
        """Indices of at most so many training images, chosen by the data's seed, for mean and deviation."""
        return torch.randperm(len(self.images["train"]), generator=rng_of(self.data.seed))[:count].sort().values

    def order(self, epoch: int) -> list[Tensor]:
        """Indices of the images of each batch of an epoch, for features that lie in memory."""
        size, order = self.data.batch_size, self.loader.order
        rows = [order.images_at(epoch, place * size, (place + 1) * size) for place in range(self.steps)]
        return list(torch.tensor(rows, device=self.compute.device))


def in_batches(data: ImageDataModule, images: Dataset[Any]) -> WatchedLoader:
    """A loader with the data's batch size and number of processes."""
    size, workers = data.batch_size, data.num_workers
    return WatchedLoader(images, batch_size=size, collate_fn=collate, num_workers=workers, worker_init_fn=begin_worker)


@contextmanager
def frozen(module: Probed, compute: Compute) -> Iterator[None]:
    """The network on the device and in evaluation mode; afterwards as it was."""
    place, was_training = module.device, module.training
    try:
        module.eval().to(compute.device)
        yield
    finally:
        module.to(place).train(was_training)


def accuracy_of(right: Callable[[T, Tensor], Tensor], batches: Iterable[tuple[T, Tensor]]) -> Tensor:
    """Shares of right answers of every problem, by the function that counts them in a batch."""
    counts, seen = [], 0
    for features, labels in batches:
        counts.append(right(features, labels))
        seen += len(labels)
    return torch.stack(counts).sum(0).cpu().float() / seen


def fits(count: int, at_most: int, compute: Compute) -> bool:
    """Whether so many bytes may be kept on the device: at most `at_most`, and on a GPU half of what is free there."""
    if compute.device == "cuda":
        at_most = min(at_most, torch.cuda.mem_get_info()[0] // 2)
    return count <= at_most
