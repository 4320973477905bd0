"""The contract between igpt and anybody's images, and what every data module shares.

A data module knows no palette. It yields batches `(images uint8 (B, 3, R, R), labels int64 (B,))`; a plug-in only
says where its images are (`load`), and this file makes splits, loaders and their order out of them.
"""

import atexit
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from igpt.contract import NO_LABEL as NO_LABEL
from igpt.contract import check_item, check_labels
from igpt.errors import UserError as UserError
from igpt.imagefile import BadImageError as BadImageError
from igpt.imagefile import decode_rgb as decode_rgb
from igpt.permutation import permuted as permuted
from igpt.shards.index import Index as Index
from igpt.shards.index import check_shards as check_shards
from igpt.shards.reading import ShardReader as ShardReader
from igpt.signals import ASKED_TO_END
from igpt.spec import spec_of
from igpt.splits import SPLITS as SPLITS
from igpt.splits import Split as Split
from igpt.splits import SplitOptions as SplitOptions
from igpt.splits import few_per_class as few_per_class
from igpt.splits import stratified_split as stratified_split


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images uint8 `(3, R, R)` with integer labels; `labels` gives all of them without reading an image.

    A data set that augments sets `augments` and overrides `draw`; indexing is for evaluation and never random.
    """

    labels: Sequence[int] | Tensor
    augments: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One training image; all randomness comes from `rng`, which belongs to (seed, epoch, index)."""
        return self[index]


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


class ChosenImages(LabelledImages):
    """Some images of a data set, in the order of `indices`."""

    def __init__(self, images: LabelledImages, indices: list[int]) -> None:
        self.base, self.indices = images, indices
        self.labels = torch.as_tensor(images.labels)[indices]
        self.augments = images.augments

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.base[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> Any:
        """A batch, as quickly as the data set behind gives it."""
        return fetch(self.base, [self.indices[index] for index in indices])

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One training image of the data set behind."""
        return self.base.draw(self.indices[index], rng)


def fetch(images: LabelledImages, indices: list[int]) -> Any:
    """Several images: a batch where the data set can give one, else a list for `collate`."""
    whole = getattr(images, "__getitems__", None)
    return whole(indices) if whole else [images[index] for index in indices]


def collate(items: Any) -> Any:
    """Stack items into a batch, unless the data set has already done so."""
    return items if isinstance(items, tuple) else default_collate(items)


def rng_of(*key: int) -> torch.Generator:
    """A generator that belongs to a tuple of numbers, such as (seed, epoch, index), each below 2^32."""
    entropy = (len(key), *key)  # NumPy pads with zeros: without the length, (0,) and (0, 0) would be one key
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1)


class TrainingOrder(DistributedSampler[tuple[int, int]]):
    """Pairs (epoch, index) in an order that is a function of (seed, epoch) alone, cut into batches for the processes.

    A pass begins with batch number `start`, counted from the beginning of training, and is as long as an epoch. Where
    it begins within an epoch it runs on into the next. The processes share every global batch, so that the images of a
    step depend on `batch_size * world_size` only. (A `DistributedSampler`, since Lightning wraps any other.)

    Args:
        count: images in the data set; what does not fill a last global batch is dropped, another part every epoch.
        batch_size: images a batch and process.
        seed: of the order.
        world_size: number of processes.
        rank: of this process.
    """

    def __init__(self, count: int, batch_size: int, seed: int, world_size: int = 1, rank: int = 0) -> None:
        super().__init__(range(count), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.count, self.batch_size = count, batch_size
        self.global_batch = batch_size * world_size
        self.batches = count // self.global_batch
        self.start = 0
        self._drawn, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in range(self.start, self.start + self.batches):
            epoch, place = divmod(number, self.batches)
            first = place * self.global_batch + self.rank * self.batch_size
            for index in self.images_at(epoch, first, first + self.batch_size):
                yield epoch, index

    def images_at(self, epoch: int, start: int, end: int) -> list[int]:
        """Indices of the images at these places of an epoch's order."""
        if epoch != self._drawn:
            self._drawn, self._order = epoch, torch.randperm(self.count, generator=rng_of(self.seed, epoch))
        found: list[int] = self._order[start:end].tolist()
        return found


class TrainingLoader(DataLoader[Any]):
    """Training batches, one endless series; each pass goes on behind the last batch that was taken from here.

    What counts is what came out, not what loader processes have fetched ahead. `state_dict` keeps the place as an epoch
    and a number of images, so that a run may go on with other batch sizes; Lightning puts it into the checkpoint.
    """

    def __init__(self, images: Dataset[Any], order: TrainingOrder, **how: Any) -> None:
        super().__init__(images, batch_size=order.batch_size, sampler=order, drop_last=True, **how)
        self.order, self.taken = order, 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.order.start = self.taken
        for batch in super().__iter__():
            self.taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The place behind the last batch taken: epoch, and images of it that all processes have taken."""
        epoch, place = divmod(self.taken, self.order.batches)
        return {"epoch": epoch, "images": place * self.order.global_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there, or at the beginning of the global batch that the place lies in."""
        self.taken = state["epoch"] * self.order.batches + state["images"] // self.order.global_batch


def end_with_the_parent(worker: int) -> None:
    """A loader process leaves signals to its parent: a scheduler sends them to all, and the last step needs data."""
    for number in ASKED_TO_END:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def end_loaders() -> None:
    """Kill the loader processes that are left at the end: multiprocessing would wait for their answer to a SIGTERM."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class TrainingImages(Dataset[Any]):
    """A data set as training sees it: addressed by (epoch, index), augmented with a generator of its own for each."""

    def __init__(self, images: LabelledImages, seed: int) -> None:
        self.base, self.seed = images, seed

    def __len__(self) -> int:
        return len(self.base)

    def __getitems__(self, draws: list[tuple[int, int]]) -> Any:
        """A batch, or the list of its items."""
        if not self.base.augments:
            return fetch(self.base, [index for _, index in draws])
        return [self.base.draw(index, rng_of(self.seed, epoch, index)) for epoch, index in draws]


def check_splits(loaded: object, resolution: int, num_classes: int) -> None:
    """Look whether these can be the splits of a data module, by their labels and the first image of each.

    Labels that are only read when asked for are left unread; an image that cannot be read is named when its turn comes.

    Raises:
        UserError: splits are not "train", "test" and perhaps "val", or one is not as `LabelledImages` says.
    """
    if not isinstance(loaded, Mapping):
        raise UserError(f"{type(loaded).__name__}, not a mapping of splits to images")
    if not {"train", "test"} <= set(loaded) <= set(SPLITS):
        raise UserError(f"the splits {', '.join(map(str, loaded))}, not train, test and perhaps val")
    for name, images in loaded.items():
        if not isinstance(images, LabelledImages):
            raise UserError(f"{type(images).__name__} as {name}, not LabelledImages")
        try:
            check_images(images, resolution, num_classes)
        except UserError as error:
            raise UserError(f"a split {name} in which {error}") from error


def check_images(images: LabelledImages, resolution: int, num_classes: int) -> None:
    """The part of `check_splits` that is about one split."""
    if "labels" in vars(images):
        check_labels(images.labels, num_classes)
    if isinstance(images, TensorImages) and len(images.images) != len(images):
        raise UserError(f"{len(images.images)} images have {len(images)} labels")
    if len(images) == 0:
        raise UserError("there are no images")
    try:
        item = images[0]
    except (OSError, UserError):
        return
    check_item(item, resolution)


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of every data module, built in or plugged in.

    A plug-in writes `load`, and `prepare_data` where files must be fetched or checked. Every constructor argument is
    kept as an attribute of the same name: that is how a checkpoint remembers its data.

    Args:
        resolution: side R of the square images in pixels.
        batch_size: images a batch and process.
        num_workers: loader processes; 0 loads in the main process.
        seed: of the validation split and of the training order.
        split: how the training images are used.

    Raises:
        UserError: a value out of range.
    """

    training_order: type[TrainingOrder] = TrainingOrder
    num_classes: int = 0
    class_names: Sequence[str] = ()
    palette_sha256: str | None = None  # whose colours the images are made of, where they were tokens before
    skipped: Sequence[tuple[str, str]] = ()  # (image, reason) of what `prepare_data` left out

    def __init__(
        self,
        resolution: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
    ) -> None:
        super().__init__()
        if resolution < 1 or batch_size < 1 or num_workers < 0 or seed < 0:
            raise UserError("data: resolution and batch_size must be at least 1, num_workers and seed at least 0")
        self.resolution = resolution
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.split = SplitOptions.of(split)
        self._splits: dict[Split, LabelledImages] = {}

    @abstractmethod
    def load(self) -> Mapping[str, LabelledImages]:
        """Return the data sets "train" and "test", and "val" only where the data have a validation split of their own.

        Who brings "val" also folds it into "train" where `self.split.fold_validation` asks for that.

        Raises:
            UserError: files are missing; the message says where to put which.
        """

    def setup(self, stage: str | None = None) -> None:
        """Make the three splits once; Lightning calls this in every process.

        Raises:
            UserError: see `load`; or what it gives breaks the contract, as far as that shows at a glance.
        """
        if self._splits:
            return
        loaded = self._loaded()
        train, val = loaded["train"], loaded.get("val")
        kept: Sequence[int] = range(len(train))
        splits: dict[Split, LabelledImages] = {"test": loaded["test"]}
        if val is not None:
            splits["val"] = val
        else:
            kept, off = stratified_split(train.labels, self.split.val_share, self.seed)
            splits["val"] = ChosenImages(train, off)
            if self.split.fold_validation:
                kept = sorted(kept + off)
        if self.split.labels_per_class is not None:
            few = few_per_class(
                torch.as_tensor(train.labels)[list(kept)], self.split.labels_per_class, self.split.subset_seed
            )
            kept = [kept[index] for index in few]
        splits["train"] = train if len(kept) == len(train) else ChosenImages(train, list(kept))
        for name, images in splits.items():
            if len(images) == 0:
                raise UserError(f"data: the {name} split is empty; change val_share or add images")
        self.train_indices, self._splits = kept, splits

    def _loaded(self) -> dict[str, LabelledImages]:
        """What `load` gives, once it has been looked at."""
        loaded = self.load()
        try:
            check_splits(loaded, self.resolution, self.num_classes)
        except UserError as error:
            raise UserError(
                f"data module {type(self).__name__}: load() gave {error}; igpt.testing checks the whole contract"
            ) from error
        return dict(loaded)

    def images(self, name: Split) -> LabelledImages:
        """The data set of one split, set up when first asked for."""
        self.setup()
        return self._splits[name]

    def size(self, name: Split) -> int:
        """Number of images in a split."""
        return len(self.images(name))

    def loader(self, name: Split) -> DataLoader[Any]:
        """Every image of one split, in a fixed order and unaugmented."""
        return DataLoader(self.images(name), batch_size=self.batch_size, **self._loading())

    def _loading(self) -> dict[str, Any]:
        workers = self.num_workers
        start = end_with_the_parent if workers else None
        return {
            "num_workers": workers,
            "collate_fn": collate,
            "persistent_workers": workers > 0,
            "worker_init_fn": start,
        }

    def train_dataloader(self) -> TrainingLoader:
        """Training batches in a new seeded order every epoch, augmented; the incomplete last batch is dropped.

        Raises:
            UserError: there are fewer images than one batch of all processes.
        """
        return self.training_loader(self.images("train"))

    def training_loader(self, images: LabelledImages, epoch: int = 0) -> TrainingLoader:
        """Batches of `images` in the order of training, beginning with `epoch`.

        Raises:
            UserError: there are fewer images than one batch of all processes.
        """
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        order = self.training_order(len(images), self.batch_size, self.seed, world_size, rank)
        if order.batches == 0:
            times = f" times {world_size} processes" if world_size > 1 else ""
            raise UserError(
                f"data.batch_size {self.batch_size}{times} exceeds the train split of {len(images)} images; lower it"
            )
        loader = TrainingLoader(TrainingImages(images, self.seed), order, **self._loading())
        loader.taken = epoch * order.batches
        return loader

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
