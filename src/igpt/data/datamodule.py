"""`ImageDataModule`, the base class of every data module: splits and loaders out of what a plug-in's `load` gives.

A data module knows no palette. It yields batches `(images uint8 (B, 3, R, R), labels int64 (B,))`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from igpt.checkpoints import plain, spec_of
from igpt.data.contract import check_splits
from igpt.data.imagefile import Resolution, shape_of
from igpt.data.images import ChosenImages, LabelledImages, fingerprint, in_memory
from igpt.data.loaders import TrainingImages, TrainingLoader, TrainingOrder, WholeBatches, fits
from igpt.data.splits import SPLITS, Split, SplitOptions, few_per_class, stratified_split
from igpt.data.workers import WatchedLoader, begin_worker, collate
from igpt.system import UserError, digest_of

DEVICE_GIB = 2.0  # CIFAR at 32x32 takes 0.15


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of every data module, built in or plugged in.

    A plug-in writes `load`, and `prepare_data` where files must be fetched or checked. Every constructor argument is
    kept as an attribute of the same name, by which a checkpoint remembers its data.

    Args:
        resolution: side R of the square images in pixels; or their rows and columns, where they are not square.
        batch_size: images a batch and process.
        num_workers: loader processes; 0 loads in the main process.
        seed: of the validation split and of the training order.
        split: how the training images are used.
        device_gib: images in memory of at most so many GiB stay on the GPU that trains, which then also augments them.

    Raises:
        UserError: a value out of range.
    """

    training_order: type[TrainingOrder] = TrainingOrder
    num_classes: int = 0
    class_names: Sequence[str] = ()
    palette_sha256: str | None = None  # of what their tokens were made by, where the images were tokens before
    token_stride: int = 1  # pixels of a token's side, where images come as grids of VQ tokens
    skipped: Sequence[tuple[str, str]] = ()  # (image, reason) of what `prepare_data` left out
    damaged: Sequence[tuple[str, str]] = ()  # those of them that are broken, and not merely no images
    added: Mapping[str, Any] = {}  # arguments that versions before did not know, with what these did

    def __init__(
        self,
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        device_gib: float = DEVICE_GIB,
    ) -> None:
        super().__init__()
        rows, columns = shape_of(resolution)
        if batch_size < 1 or num_workers < 0 or seed < 0:
            raise UserError("data: batch_size must be at least 1, num_workers and seed at least 0")
        if not device_gib >= 0:
            raise UserError(f"data.device_gib {device_gib} must be at least 0; 0 keeps no images on the GPU")
        self.resolution: Resolution = rows if rows == columns else (rows, columns)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.split = SplitOptions.of(split)
        self.device_gib = device_gib
        self._splits: dict[Split, LabelledImages] = {}
        self._whole: dict[str, LabelledImages] = {}
        self._fingerprint: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return shape_of(self.resolution)

    @abstractmethod
    def load(self) -> Mapping[str, LabelledImages]:
        """Return the data sets "train" and "test", and "val" only where the data have a validation split of their own.

        Who brings "val" also folds it into "train" where `self.split.fold_validation` asks for that.

        Raises:
            UserError: files are missing; the message says where to put which.
        """

    def setup(self, stage: str | None = None) -> None:
        """Make the three splits once, in every process, after a look at what `load` gives."""
        if self._splits:
            return
        loaded = self._whole = self._loaded()
        train, val = loaded["train"], loaded.get("val")
        kept: Sequence[int] = range(len(train))
        if val is None:
            kept, off = stratified_split(train.labels, self.split.val_share, self.seed)
            val = ChosenImages(train, off)
            if self.split.fold_validation:
                kept = sorted(kept + off)
        if self.split.labels_per_class is not None:
            labels = torch.as_tensor(train.labels)[list(kept)]
            few = few_per_class(labels, self.split.labels_per_class, self.split.subset_seed)
            kept = [kept[index] for index in few]
        chosen = train if len(kept) == len(train) else ChosenImages(train, list(kept))
        splits: dict[Split, LabelledImages] = {"train": chosen, "val": val, "test": loaded["test"]}
        for name, images in splits.items():
            if len(images) == 0:
                raise UserError(f"data: the {name} split is empty; change val_share or add images")
        self.train_indices, self._splits = kept, splits

    def _loaded(self) -> dict[str, LabelledImages]:
        """What `load` gives, once it has been looked at."""
        loaded = self.load()
        try:
            check_splits(loaded, self.resolution, self.num_classes, self.token_stride)
        except UserError as error:
            raise UserError(
                f"data module {type(self).__name__}: load() gave {error}; igpt.testing checks the whole contract"
            ) from error
        return dict(loaded)

    def check_pictures(self) -> None:
        """Raise a UserError where there are VQ tokens and no pictures."""
        if self.token_stride > 1:
            raise UserError(
                f"--data: {type(self).__name__} gives VQ tokens, and pictures are needed; name the data that they were "
                "made from"
            )

    def keep_broken(self) -> None:
        """Leave no image out for being broken: `igpt check` looks for these itself. Called before anything else."""

    def images(self, name: Split) -> LabelledImages:
        """The data set of one split, set up when first asked for."""
        self.setup()
        return self._splits[name]

    def size(self, name: Split) -> int:
        """Number of images in a split."""
        return len(self.images(name))

    def loader(self, name: Split, some: Sequence[int] | None = None) -> DataLoader[Any]:
        """Every image of one split, or those of the indices `some`, in a fixed order and unaugmented."""
        images = self.images(name) if some is None else ChosenImages(self.images(name), some)
        return WatchedLoader(
            images, batch_size=self.batch_size, sampler=self._evaluation_share(len(images)), **self._loading()
        )

    def _evaluation_share(self, count: int) -> WholeBatches | None:
        """Where several processes validate or test, this one's share of a split."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1 or trainer.state.fn not in ("fit", "validate", "test"):
            return None
        return WholeBatches(count, self.batch_size, trainer.world_size, trainer.global_rank)

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": begin_worker,
            "pin_memory": self._device().type == "cuda",
        }

    def _device(self) -> torch.device:
        """Where batches are made: the GPU that trains, else the CPU."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")

    def train_dataloader(self) -> TrainingLoader:
        """Training batches in a new seeded order every epoch, augmented; see `training_loader`."""
        return self.training_loader(self.images("train"))

    def training_loader(self, images: LabelledImages, epoch: int = 0) -> TrainingLoader:
        """Batches of `images` in the order of training, beginning with `epoch`; the incomplete last one is dropped.

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
        loader = self._gathering(images, order)
        if loader is None:
            loader = TrainingLoader(TrainingImages(images, self.seed), order, **self._loading())
        loader.taken = epoch * order.batches
        return loader

    def _gathering(self, images: LabelledImages, order: TrainingOrder) -> TrainingLoader | None:
        """A loader that only counts, its batches gathered on the device; None where the images do not allow it."""
        memory, device = in_memory(images), self._device()
        if memory is None or not fits(memory, device, self.device_gib):
            return None
        if device.type != "cuda" and self.num_workers:  # their memory is where the images are
            return None
        counting = self._loading() | {"num_workers": 0, "persistent_workers": False}
        addresses = TrainingImages(images, self.seed, addresses=True)
        return TrainingLoader(addresses, order, memory.to(device).batch, **counting)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches in a fixed order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches in a fixed order."""
        return self.loader("test")

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """All three splits in a fixed order, for features; in the order of `SPLITS`."""
        return [self.loader(name) for name in SPLITS]

    def identity(self) -> dict[str, Any]:
        """What tells these data from others, as plain data: figures compare only where all of it but `root` is equal.

        Subsets, folding, batches and augmentation play no part: they are options of a run, not of its data.
        """
        sizes = self._sizes()
        own = "val" in self._whole
        return {
            "name": type(self).__name__,
            "root": next((str(vars(self)[name]) for name in ("root", "folder") if name in vars(self)), None),
            "resolution": plain(self.resolution),
            "classes": self.num_classes,
            "class_names": digest_of(list(self.class_names))[:16],
            "validation": "own" if own else {"share": self.split.val_share, "seed": self.seed},
            "images": sizes,
            "fingerprint": self.fingerprint(),
        }

    def transparent(self) -> tuple[int, str] | None:
        """How many training images have pixels that are not opaque, and the colour behind them; None without files."""
        return None

    def fingerprint(self) -> str:
        """A few hexadecimal digits made of all labels and of some pictures of each split."""
        if self._fingerprint is None:
            parts = {name: fingerprint(self._whole[name], count) for name, count in self._sizes().items()}
            self._fingerprint = digest_of(parts)[:16]
        return self._fingerprint

    def _sizes(self) -> dict[str, int]:
        """Images of each part that `load` gives; those of a folded validation split count there alone."""
        self.setup()
        sizes = {name: len(images) for name, images in sorted(self._whole.items())}
        if self.split.fold_validation and "val" in sizes:
            sizes["train"] -= sizes["val"]
        return sizes

    def steps_per_epoch(self, world_size: int = 1, accumulate: int = 1) -> int:
        """Optimizer steps in one pass over the training split."""
        return max(1, self.size("train") // (self.batch_size * world_size * accumulate))

    @classmethod
    def completed(cls, init_args: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a checkpoint, with what older versions did not store but another default would now change."""
        return init_args

    def spec(self) -> dict[str, Any]:
        """`{"class_path", "init_args"}` as plain data, from which a checkpoint can build this data module again.

        Arguments that were `added` are in it only where they change something, so that records of versions before
        stay those of the same data.
        """
        spec = spec_of(self)
        spec["init_args"].pop("device_gib", None)  # of a machine, not of the data
        for name, value in self.added.items():
            if spec["init_args"].get(name) == value:
                del spec["init_args"][name]
        return spec
