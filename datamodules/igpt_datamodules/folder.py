"""Images in class folders, read from disk one at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from igpt.data import BadImageError, ImageDataModule, LabelledImages, SplitOptions, UserError, stratified_split
from igpt_datamodules.augment import centre_crop_box, random_crop_box, resample
from igpt_datamodules.reading import Stored, read_rgb
from igpt_datamodules.shards import files_below


class StoredImages(LabelledImages):
    """Images on disk, cropped to the square and brought to `(3, R, R)`; training draws are augmented where asked for.

    Args:
        stored: where they are.
        labels: one each.
        resolution: side R in pixels.
        augment: draw random crops (section 3.1) instead of the centre.
    """

    def __init__(
        self, stored: Sequence[Stored], labels: Sequence[int] | Tensor, resolution: int, augment: bool = False
    ) -> None:
        self.stored, self.resolution, self.augments = stored, resolution, augment
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


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders inside a folder, sorted; hidden ones are left out."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))


def labelled_files(folder: Path, classes: Sequence[str]) -> tuple[list[Stored], list[int]]:
    """The images in FOLDER/CLASS/..., class by class, and their labels, the places of their classes in `classes`.

    Raises:
        UserError: the folder is missing, has no class folders or images, holds one that cannot be read, or has a class
            that is not in `classes`.
    """
    if not folder.is_dir():
        raise UserError(f"folder {folder} is missing; put class folders with images into it")
    here = class_folders(folder)
    if not here:
        raise UserError(f"folder {folder} has no class folders; sort its images into {folder}/CLASS/")
    if unknown := sorted(set(here) - set(classes)):
        raise UserError(f"folder {folder / unknown[0]}: no class of the training images; rename or remove it")
    stored, labels = [], []
    for name in here:
        files = files_below(folder / name)
        stored += [Stored(file) for file in files]
        labels += [classes.index(name)] * len(files)
    if not stored:
        raise UserError(f"folder {folder} has no images in its class folders; put some there")
    return stored, labels


def training_files(folder: Path) -> tuple[tuple[str, ...], list[Stored], list[int]]:
    """The classes of a training folder, its images and their labels.

    Raises:
        UserError: the folder is missing, or a class has no images.
    """
    classes = class_folders(folder) if folder.is_dir() else ()
    stored, labels = labelled_files(folder, classes)
    if empty := sorted(set(range(len(classes))) - set(labels)):
        raise UserError(f"class folder {folder / classes[empty[0]]} has no images; add some or remove it")
    return classes, stored, labels


class ImageFolder(ImageDataModule):
    """Your own classes: ROOT/train/CLASS/... and ROOT/test/CLASS/..., with or without ROOT/val/CLASS/...

    Or only ROOT/CLASS/..., from which a stratified share becomes the test split. Images may have any size and format
    that Pillow reads safely; they are read when needed.

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
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        check_share("test_share", test_share)
        self.root = root
        self.augment = augment
        self.test_share = test_share
        self.test_seed = test_seed

    def prepare_data(self) -> None:
        """Find the folders.

        Raises:
            UserError: a folder is missing or empty.
        """
        self.setup()

    def load(self) -> Mapping[str, LabelledImages]:
        """The parts that have folders of their own; else the test split, drawn from the one tree."""
        root = Path(self.root)
        if (root / "train").is_dir() and class_folders(root / "train"):
            return self._separate(root)
        self.class_names, stored, labels = training_files(root)
        self.num_classes = len(self.class_names)
        kept, off = split_test(labels, self.test_share, self.test_seed)
        return {
            "train": self._images([stored[i] for i in kept], [labels[i] for i in kept], self.augment),
            "test": self._images([stored[i] for i in off], [labels[i] for i in off]),
        }

    def _separate(self, root: Path) -> dict[str, LabelledImages]:
        self.class_names, stored, labels = training_files(root / "train")
        self.num_classes = len(self.class_names)
        parts = {"test": self._images(*labelled_files(root / "test", self.class_names))}
        if (root / "val").is_dir():
            more = labelled_files(root / "val", self.class_names)
            parts["val"] = self._images(*more)
            if self.split.fold_validation:
                stored, labels = stored + more[0], labels + more[1]
        return {**parts, "train": self._images(stored, labels, self.augment)}

    def _images(self, stored: list[Stored], labels: list[int], augment: bool = False) -> LabelledImages:
        return StoredImages(stored, labels, self.resolution, augment)


def check_share(name: str, share: float) -> None:
    """Refuse shares outside of (0, 1).

    Raises:
        UserError: names the option.
    """
    if not 0 < share < 1:
        raise UserError(f"data.{name} {share} must lie between 0 and 1")


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
