"""`TokenShards`: training on the shards that `igpt tokenize` wrote."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from igpt.data import (
    ImageDataModule,
    Index,
    LabelledImages,
    ShardReader,
    SplitOptions,
    TrainingOrder,
    check_shards,
    permuted,
)

AT_ONCE = 4096  # places of the order that are computed together


class TokenImages(LabelledImages):
    """Images of shards: every pixel is the 24-bit colour that stands for its token; VQ tokens come as their grid.

    Encoding with what the shards were made by gives the tokens back exactly. Images that were tokenised in random
    variants are trained on these.
    """

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self.augments = reader.views > 1

    def __len__(self) -> int:
        return len(self.reader)

    @cached_property
    def labels(self) -> Tensor:  # type: ignore[override]  # read only when asked for, eight bytes an image
        """Labels of all images, int64 `(N,)`."""
        return torch.from_numpy(self.reader.all_labels())

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._view(index, 0)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, already collated."""
        images, labels = self.reader.images(indices)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One of the image's random variants, or the image itself where it has none."""
        variants = self.reader.views_of(index) - 1
        return self._view(index, int(torch.randint(variants, (1,), generator=rng)) + 1 if variants else 0)

    def _view(self, index: int, view: int) -> tuple[Tensor, int]:
        images, labels = self.reader.images([index], view)
        return torch.from_numpy(images[0]), int(labels[0])


class PermutedOrder(TrainingOrder):
    """The order of an epoch without a list of its images, so that 100 million cost no memory and no time to start."""

    _known: tuple[int, int, list[int]] = (-1, 0, [])  # epoch, first place, and the images from there on

    def images_at(self, epoch: int, start: int, end: int) -> list[int]:
        """Indices of the images at these places; some thousand are computed at once, as that costs little more."""
        known, first, images = self._known
        if known != epoch or not first <= start <= end <= first + len(images):
            places = np.arange(start, min(max(end, start + AT_ONCE), self.count))
            first, images = start, permuted(places, self.count, (self.seed, epoch)).tolist()
            self._known = epoch, first, images
        return images[start - first : end - first]


class TokenShards(ImageDataModule):
    """Images that `igpt tokenize` wrote as tokens; resolution, classes and splits are those of the shards.

    At the start the index is checked, and that every shard is there in its full size; `verify` checks every byte. The
    model must have the palette, or the VQ tokens, that they were made with.

    Args:
        folder: of the shards.
        batch_size: images a batch and process.
        num_workers: loader processes; 0 is quick enough unless the disk is slow or images have variants.
        seed: of the training order, and of the choice among variants.
        split: folding and low-data subsets; `val_share` has no say, since the splits are made.
        verify: compare every shard with its checksum before anything else.

    Raises:
        UserError: the folder has no index, or one that is damaged or of an unknown format.
    """

    training_order = PermutedOrder

    def __init__(
        self,
        folder: str = "data/shards",
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        verify: bool = False,
    ) -> None:
        self._index = Index.read(Path(folder))
        super().__init__(self._index.resolution, batch_size, num_workers, seed, split)
        self.folder = folder
        self.verify = verify
        self.num_classes = self._index.num_classes
        self.class_names = self._index.class_names
        self.palette_sha256, self.token_stride = self._index.tokens.sha256, self._index.tokens.stride

    def prepare_data(self) -> None:
        """Look at the shards, where asked for at every byte; see `igpt.data.check_shards`."""
        check_shards(Path(self.folder), self._index, every_byte=self.verify)

    def load(self) -> Mapping[str, LabelledImages]:
        """The three splits; training has the validation images, too, where they are folded in."""
        check_shards(Path(self.folder), self._index)
        train = ("train", "val") if self.split.fold_validation else ("train",)
        return {"train": self._images(*train), "val": self._images("val"), "test": self._images("test")}

    def fingerprint(self) -> str:
        """That of the index, which has a checksum of every shard: no label is read for it."""
        return str(self._index.to_dict()["sha256"])[:16]

    def _images(self, *splits: str) -> LabelledImages:
        return TokenImages(ShardReader(Path(self.folder), self._index, splits))
