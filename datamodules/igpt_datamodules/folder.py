"""Images in class folders, read from disk one at a time."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from igpt.data import SPLITS, BadImageError, ImageDataModule, LabelledImages, SplitOptions, UserError, stratified_split
from igpt_datamodules.augment import centre_crop_box, random_crop_box, resample
from igpt_datamodules.checking import bad_images, check_bad
from igpt_datamodules.classes import (
    ClassOrder,
    Labelled,
    beside,
    class_folders,
    labelled_files,
    split_folders,
    training_files,
)
from igpt_datamodules.duplicates import MOST, said, stored_of, twins
from igpt_datamodules.listing import StoredList
from igpt_datamodules.reading import Stored, read_rgb
from igpt_datamodules.walking import Skipped, summary


class StoredImages(LabelledImages):
    """Images on disk, cropped to the square and brought to `(3, R, R)`; training draws are augmented where asked for.

    Args:
        stored: where they are.
        labels: one each.
        resolution: side R in pixels.
        augment: draw random crops (section 3.1) instead of the centre.
    """

    def __init__(
        self, stored: Iterable[Stored], labels: Sequence[int] | Tensor, resolution: int, augment: bool = False
    ) -> None:
        self.stored = stored if isinstance(stored, StoredList) else StoredList(stored)
        self.resolution, self.augments = resolution, augment
        self.labels = torch.as_tensor(labels, dtype=torch.int64)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._read(index)
        return resample(image, centre_crop_box(image.size), self.resolution), int(self.labels[index])

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One training image: a random crop if augmented, else the centre."""
        if not self.augments:
            return self[index]
        image = self._read(index)
        return resample(image, random_crop_box(image.size, rng), self.resolution), int(self.labels[index])

    def _read(self, index: int) -> Image.Image:
        try:
            return read_rgb(self.stored[index])
        except BadImageError as error:
            raise UserError(f"image {self.stored[index].name}: {error}; mend or remove the file") from error


class StoredModule(ImageDataModule):
    """A data module whose images are files: what is not used is kept in `skipped`, and said once, in one line."""

    beside: Sequence[str] = ()  # names of folders that are not used
    _said = False

    def say(self) -> None:
        """Print how many images there are where something about them should be known, once."""
        self.setup()
        if self._said:
            return
        self._said = True
        clauses = [summary(self.skipped)] if self.skipped else []
        if self.beside:
            clauses.append(f"folders beside the splits that are not used: {', '.join(self.beside)}")
        clauses.append(self._repeated())
        if any(clauses):
            print(f"{type(self).__name__}: {self.total():,} images; {'; '.join(filter(None, clauses))}")

    def total(self) -> int:
        """Images of all splits, each counted once."""
        return sum(self.size(name) for name in SPLITS) - self.split.fold_validation * self.size("val")

    def _repeated(self) -> str:
        """The clause about pictures that are in two splits."""
        if self.total() > MOST:
            return ""
        return said(twins({name: stored_of(self.images(name)) for name in SPLITS}), {n: self.size(n) for n in SPLITS})


class ImageFolder(StoredModule):
    """Your own classes: ROOT/train/CLASS/... and ROOT/test/CLASS/..., with or without ROOT/val/CLASS/...

    Or only ROOT/CLASS/..., from which a stratified share becomes the test split. The folders of the splits may be named
    in any letter case, and training, valid, validation or testing. Images may have any size and format that Pillow
    reads safely; they are read when needed. Links are followed. What is hidden, of the system, or no picture by its
    name is left out, counted in one line and listed in `skipped`; pictures that are in two splits byte for byte are
    counted, too, where there are at most 50,000 images.

    Args:
        root: the folder.
        resolution: side R in pixels.
        batch_size: images a batch and process.
        num_workers: loader processes; as many as there are cores, since every image is decoded anew.
        seed: of the validation split, the training order and the augmentation.
        split: validation share (unused where ROOT/val exists), folding, low-data subsets.
        augment: train on random crops as the paper does on ImageNet; else on the centre.
        test_share: share that becomes the test split where there is no ROOT/test.
        test_seed: which images these are; apart from `seed`, so that runs with other seeds can be compared.
        classes: the order of the classes, and so of their labels: natural (2 before 10), sorted (by code point, as
            torchvision does), or a list of all their names, as checkpoints keep it.
        on_error: of a file that gives no picture: raise ends the run when its turn comes; skip decodes each file once
            before training, as `WebImages` does, and leaves it out.
        max_bad_share: with on_error skip, stop if more than this share of the files is bad.
    """

    def __init__(
        self,
        root: str = "data/images",
        resolution: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        augment: bool = True,
        test_share: float = 0.1,
        test_seed: int = 0,
        classes: ClassOrder = "natural",
        on_error: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.05,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        check_share("test_share", test_share)
        check_bad_share(max_bad_share)
        if isinstance(classes, list) and len(set(classes)) < len(classes):
            raise UserError("data.classes names a class twice; name each once")
        self.root = root
        self.augment = augment
        self.test_share = test_share
        self.test_seed = test_seed
        self.classes = classes
        self.on_error = on_error
        self.max_bad_share = max_bad_share

    @classmethod
    def completed(cls, init_args: dict[str, Any]) -> dict[str, Any]:
        """Checkpoints that say nothing about the order of the classes were made when it was that of code points."""
        return {"classes": "sorted"} | init_args

    def spec(self) -> dict[str, Any]:
        """As of any data module; once the folders have been read, with the classes in the order of their labels."""
        spec = super().spec()
        if self.class_names:
            spec["init_args"]["classes"] = list(self.class_names)
        return spec

    def keep_broken(self) -> None:
        """Leave no image out."""
        self.on_error = "raise"

    def prepare_data(self) -> None:
        """Find the images, and say in one line what is left out, and which are in two splits.

        Raises:
            UserError: a folder is missing or empty, or too many files are bad.
        """
        self.say()

    def load(self) -> Mapping[str, LabelledImages]:
        """The parts that have folders of their own; else the test split, drawn from the one tree."""
        root = Path(self.root)
        parts = split_folders(root) if root.is_dir() else {}
        if "train" in parts and class_folders(parts["train"]):
            found = self._separate(root, parts)
        else:
            check_one_tree(root, parts)
            found = self._drawn(root)
        self.num_classes = len(self.class_names)
        return found

    def _drawn(self, root: Path) -> dict[str, LabelledImages]:
        self.class_names, found = training_files(root, self.classes)
        stored, labels = self._usable([found])[0]
        by_name = sorted(range(len(self.class_names)), key=self.class_names.__getitem__)
        rank = {label: place for place, label in enumerate(by_name)}  # the split does not depend on the labels' order
        kept, off = split_test([rank[label] for label in labels], self.test_share, self.test_seed)
        return {
            "train": self._images(stored.take(kept), [labels[i] for i in kept], self.augment),
            "test": self._images(stored.take(off), [labels[i] for i in off]),
        }

    def _separate(self, root: Path, folders: Mapping[Any, Path]) -> dict[str, LabelledImages]:
        self.class_names, train = training_files(folders["train"], self.classes)
        self.beside, unused = beside(root, list(folders.values()))
        if "test" not in folders:
            hint = f" (beside {folders['train'].name} there is {', '.join(self.beside)})" if self.beside else ""
            raise UserError(f"folder {root / 'test'} is missing{hint}; put class folders with images into it")
        names = [name for name in ("train", "test", "val") if name in folders]
        found = [train, *(labelled_files(folders[name], self.class_names) for name in names[1:])]
        parts = dict(zip(names, self._usable(found, unused), strict=True))
        if "val" in parts and self.split.fold_validation:
            both = [*parts["train"][0], *parts["val"][0]]
            parts["train"] = StoredList(both), parts["train"][1] + parts["val"][1]
        return {name: self._images(*part, self.augment and name == "train") for name, part in parts.items()}

    def _usable(self, parts: list[Labelled], unused: Skipped | None = None) -> list[tuple[StoredList, list[int]]]:
        """Images and labels of several folders; with on_error skip without the bad ones. Notes what is left out."""
        self.skipped = [*(unused or []), *(one for part in parts for one in part.unused)]
        usable = [(StoredList(map(Stored, part.files)), part.labels) for part in parts]
        if self.on_error == "raise":
            return usable
        bad: Skipped = []
        good = []
        for stored, labels in usable:
            reasons = bad_images(stored, self.num_workers)
            bad += [(stored[i].name, reason) for i, reason in enumerate(reasons) if reason]
            kept = [i for i, reason in enumerate(reasons) if not reason]
            good.append((stored.take(kept), [labels[i] for i in kept]))
        check_bad(type(self).__name__, self.root, bad, sum(len(labels) for _, labels in usable), self.max_bad_share)
        self.damaged, self.skipped = bad, [*bad, *self.skipped]
        return good

    def _images(self, stored: StoredList, labels: list[int], augment: bool = False) -> LabelledImages:
        return StoredImages(stored, labels, self.resolution, augment)


def check_one_tree(root: Path, parts: Mapping[Any, Path]) -> None:
    """Raise a UserError where all folders of a root are named after splits, but hold no classes."""
    if not parts or set(class_folders(root)) - {folder.name for folder in parts.values()}:
        return
    if "train" not in parts:
        raise UserError(f"folder {root / 'train'} is missing; put class folders with images into it")
    train = parts["train"]
    raise UserError(
        f"folder {train} has no class folders; sort its images into {train}/CLASS/, or read them with WebImages"
    )


def check_share(name: str, share: float) -> None:
    """Refuse shares outside of (0, 1).

    Raises:
        UserError: names the option.
    """
    if not 0 < share < 1:
        raise UserError(f"data.{name} {share} must lie between 0 and 1")


def check_bad_share(share: float) -> None:
    """Refuse shares outside of [0, 1].

    Raises:
        UserError: names the option.
    """
    if not 0 <= share <= 1:
        raise UserError(f"data.max_bad_share {share} must lie from 0 to 1")


def split_test(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train and to test on, stratified.

    Raises:
        UserError: there are too few images for one to test on.
    """
    kept, off = stratified_split(labels, share, seed)
    if not off or not kept:
        raise UserError(
            f"data.test_share {share} of {len(labels)} images leaves a split empty; add images or change it"
        )
    return kept, off
