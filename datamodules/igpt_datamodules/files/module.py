"""`StoredImages` and `StoredModule`, for images that are read from files one at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from igpt.data import (
    SPLITS,
    BadImageError,
    Box,
    ImageDataModule,
    LabelledImages,
    Resolution,
    UserError,
    centre_crop_box,
    resample,
    stratified_split,
)
from igpt_datamodules.augment import random_crop_box
from igpt_datamodules.files.checking import transparent_images
from igpt_datamodules.files.duplicates import MOST, said, stored_of, twins
from igpt_datamodules.files.stored import Pictures, Stored, StoredList, read_rgb
from igpt_datamodules.files.walking import summary


class StoredImages(LabelledImages):
    """Images on disk as `(3, R, R)`: the centre crop, or in training with `augment` random crops (section 3.1)."""

    def __init__(
        self,
        stored: Iterable[Stored] | Pictures,
        labels: Sequence[int] | Tensor,
        resolution: Resolution,
        augment: bool = False,
        background: str = "white",
    ) -> None:
        self.stored: Pictures = stored if isinstance(stored, Pictures) else StoredList(stored)
        self.resolution, self.augments, self.background = resolution, augment, background
        self.labels = torch.as_tensor(labels, dtype=torch.int64)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._cropped(index, centre_crop_box)

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One training image: a random crop if augmented, else the centre."""
        return self._cropped(index, partial(random_crop_box, rng=rng) if self.augments else centre_crop_box)

    def _cropped(self, index: int, box_of: Callable[..., Box]) -> tuple[Tensor, int]:
        stored = self.stored[index]
        try:
            image = read_rgb(stored, self.background)
        except BadImageError as error:
            raise UserError(f"image {stored.name}: {error}; mend or remove it") from error
        return resample(image, box_of(image.size, resolution=self.resolution), self.resolution), int(self.labels[index])


class StoredModule(ImageDataModule):
    """A data module whose images are files; what is left out is kept in `skipped`."""

    beside: Sequence[str] = ()  # names of folders that are not used
    added: Mapping[str, Any] = {"background": "white"}
    compared = MOST  # images, in files, among which equal ones are looked for at every start
    _said = False

    def prepare_data(self) -> None:
        """Find the images, and say once, in one line, what is left out and which are in two splits."""
        self.setup()
        if self._said:
            return
        self._said = True
        clauses = [summary(self.skipped)] if self.skipped else []
        if self.beside:
            clauses.append(f"folders beside the splits that are not used: {', '.join(self.beside)}")
        if self.total() <= self.compared:
            stored: dict[str, StoredList] = {name: cast(StoredList, stored_of(self.images(name))) for name in SPLITS}
            clauses.append(said(twins(stored), {name: self.size(name) for name in SPLITS}))
        if any(clauses):
            print(f"{type(self).__name__}: {self.total():,} images; {'; '.join(filter(None, clauses))}")

    def transparent(self) -> tuple[int, str] | None:
        """How many training images have pixels that are not opaque, and the colour that these are laid on."""
        stored = stored_of(self.images("train"))
        return transparent_images(stored, self.num_workers), vars(self).get("background", "white")

    def total(self) -> int:
        """Images of all splits, each counted once."""
        return sum(self.size(name) for name in SPLITS) - self.split.fold_validation * self.size("val")


def check_shares(test_share: float, max_bad_share: float = 0) -> None:
    """Raise a UserError unless the first lies inside of 0 to 1, and the other from 0 to 1."""
    if not 0 < test_share < 1:
        raise UserError(f"data.test_share {test_share} must lie between 0 and 1")
    if not 0 <= max_bad_share <= 1:
        raise UserError(f"data.max_bad_share {max_bad_share} must lie from 0 to 1")


def split_test(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train and to test on, stratified; a UserError where there are too few images for one to test on."""
    kept, off = stratified_split(labels, share, seed)
    if not off or not kept:
        raise UserError(
            f"data.test_share {share} of {len(labels)} images leaves a split empty; add images or change it"
        )
    return kept, off
