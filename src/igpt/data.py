"""The contract between igpt and anybody's images, and the splits that every data module shares.

A data module knows no palette. It yields batches `(images uint8 (B, 3, R, R), labels int64 (B,))`; a plug-in only
says where its images are (`load`), and this file makes splits, loaders and their order out of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from igpt.errors import UserError as UserError
from igpt.spec import spec_of

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NO_LABEL = -1


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images uint8 `(3, R, R)` with integer labels; `labels` gives all of them without reading an image."""

    labels: Sequence[int] | Tensor

    def __len__(self) -> int:
        return len(self.labels)


class TensorImages(LabelledImages):
    """Images held in memory: uint8 `(N, 3, R, R)` and labels int64 `(N,)`. Whole batches are one indexing each."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels.to(torch.int64)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, already collated; the loader's `collate` lets it pass."""
        assert isinstance(self.labels, Tensor)
        return self.images[indices], self.labels[indices]


def collate(items: Any) -> Any:
    """Stack items into a batch, unless the data set has already done so."""
    return items if isinstance(items, tuple) else default_collate(items)


def stratified_split(labels: Sequence[int] | Tensor, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices that stay and indices split off: `round(share * N)` in all, each class its share to within one.

    Depends on labels, share and seed alone, and is the same on every machine.
    """
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


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of every data module, built in or plugged in.

    A plug-in writes `load`, and `prepare_data` where files must be fetched or checked. Every constructor argument is
    kept as an attribute of the same name: that is how a checkpoint remembers its data.

    Args:
        resolution: side R of the square images in pixels.
        batch_size: images a batch and process.
        num_workers: loader processes; 0 loads in the main process.
        seed: of the validation split and of the training order.
        val_share: share of the training images split off for validation (10 % in the paper), stratified by class.

    Raises:
        UserError: a value out of range.

    """

    num_classes: int = 0
    class_names: Sequence[str] = ()

    def __init__(
        self,
        resolution: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        val_share: float = 0.1,
    ) -> None:
        super().__init__()
        if resolution < 1 or batch_size < 1 or num_workers < 0:
            raise UserError("data: resolution and batch_size must be at least 1, num_workers at least 0")
        if not 0 < val_share < 1:
            raise UserError(f"data.val_share {val_share} must lie between 0 and 1")
        self.resolution = resolution
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.val_share = val_share
        self._splits: dict[Split, Dataset[Any]] = {}

    @abstractmethod
    def load(self) -> Mapping[str, LabelledImages]:
        """Return the data sets "train" and "test", and "val" only where the data have a validation split of their own.

        Raises:
            UserError: files are missing; the message says where to put which.

        """

    def setup(self, stage: str | None = None) -> None:
        """Make the three splits once; Lightning calls this in every process."""
        if self._splits:
            return
        loaded = dict(self.load())
        train = loaded["train"]
        if "val" in loaded:
            self._splits = {"train": train, "val": loaded["val"], "test": loaded["test"]}
        else:
            kept, off = stratified_split(train.labels, self.val_share, self.seed)
            self._splits = {"train": Subset(train, kept), "val": Subset(train, off), "test": loaded["test"]}
        for name, images in self._splits.items():
            if len(images) == 0:  # type: ignore[arg-type]
                raise UserError(f"data: the {name} split is empty; change val_share or add images")

    def split(self, name: Split) -> Dataset[Any]:
        """The data set of one split, set up when first asked for."""
        self.setup()
        return self._splits[name]

    def size(self, name: Split) -> int:
        """Number of images in a split."""
        return len(self.split(name))  # type: ignore[arg-type]

    def loader(self, name: Split, shuffle: bool = False) -> DataLoader[Any]:
        """Batches of one split; shuffled loaders drop the incomplete last batch, others keep every image."""
        if shuffle and self.size(name) < self.batch_size:
            raise UserError(
                f"data.batch_size {self.batch_size} exceeds the {name} split of {self.size(name)} images; lower it"
            )
        return DataLoader(
            self.split(name),
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches in a new seeded order every epoch."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches in a fixed order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches in a fixed order."""
        return self.loader("test")

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """All three splits in a fixed order, for features; in the order of `SPLITS`."""
        return [self.loader(name) for name in SPLITS]

    def steps_per_epoch(self, world_size: int = 1, accumulate: int = 1) -> int:
        """Optimizer steps in one pass over the training split."""
        return max(1, self.size("train") // (self.batch_size * world_size * accumulate))

    def spec(self) -> dict[str, Any]:
        """`{"class_path", "init_args"}` as plain data, from which a checkpoint can build this data module again."""
        return spec_of(self)
