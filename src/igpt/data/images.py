"""Map-style datasets of labelled images: in memory, augmented, subsets; and their fingerprints."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from igpt.data.imagefile import Resolution, centre_crop_box, resample, upright_rgb
from igpt.system import UserError

NO_LABEL = -1
LOOKED_AT = 16  # images of a split whose pixels tell it from others of equal labels; all would cost a pass over them


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
    """Images held in memory: uint8 `(N, 3, R, R)` and labels int64 `(N,)`."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels.to(torch.int64)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, already collated; the loader's `collate` lets it pass."""
        assert isinstance(self.labels, Tensor)
        return self.images[indices], self.labels[indices]


class AugmentedImages(TensorImages, ABC):
    """Images in memory that training sees augmented, a whole batch at a time; a subclass writes `augment_batch`.

    A subclass that overrides `draw` instead augments image by image, as any `LabelledImages` does.
    """

    augments = True

    @abstractmethod
    def augment_batch(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment images uint8 `(B, 3, R, R)`, on whatever device they are.

        Args:
            images: not to be changed in place.
            keys: int64 `(B,)`, where all randomness comes from (`random_ints`), so that an image's augmentation
                depends neither on the rest of the batch nor on the device.
        """

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One image, augmented with a key that `rng` draws."""
        image, label = self[index]
        key = torch.randint(-(2**63), 2**63 - 1, (1,), generator=rng)
        return self.augment_batch(image[None], key)[0], label


class ChosenImages(LabelledImages):
    """Some images of a data set, in the order of `indices`, which are kept as int64 `(N,)`."""

    def __init__(self, images: LabelledImages, indices: Sequence[int] | Tensor) -> None:
        self.base, self.indices = images, torch.as_tensor(indices, dtype=torch.int64)
        self.labels = torch.as_tensor(images.labels)[self.indices]
        self.augments = images.augments

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.base[int(self.indices[index])]

    def __getitems__(self, indices: list[int]) -> Any:
        """A batch, as quickly as the data set behind gives it."""
        return fetch(self.base, self.indices[indices].tolist())

    def draw(self, index: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """One training image of the data set behind."""
        return self.base.draw(int(self.indices[index]), rng)


def any_unlabelled(labels: Sequence[int] | Tensor) -> bool:
    """Whether some of these images `(N,)` have no label."""
    return bool((torch.as_tensor(labels) <= NO_LABEL).any())


def label_bytes(images: LabelledImages, count: int | None = None) -> bytes:
    """The labels of the first `count` images, or of all, as little-endian int64."""
    return torch.as_tensor(images.labels)[:count].to(torch.int64).numpy().astype("<i8").tobytes()


def pixel_sha256(image: Tensor) -> str:
    """SHA-256 of one image's pixels."""
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


def evenly_spaced(count: int) -> list[int]:
    """The indices of the few of `count` images that a fingerprint looks at."""
    return sorted({place * (count - 1) // (LOOKED_AT - 1) for place in range(LOOKED_AT)}) if count else []


def fingerprint(images: LabelledImages, count: int | None = None, looked_at: Sequence[int] | None = None) -> str:
    """SHA-256 of the labels of the first `count` images, or of all, and of the pixels of some (`evenly_spaced`).

    The same on every machine. An image that cannot be read counts as such.
    """
    found = hashlib.sha256(label_bytes(images, count))
    count = len(images) if count is None else count
    for index in evenly_spaced(count) if looked_at is None else looked_at:
        try:
            found.update(images[index][0].numpy().tobytes())
        except (UserError, OSError):
            found.update(b"unreadable")
    return found.hexdigest()


def fetch(images: LabelledImages, indices: list[int]) -> Any:
    """Several images: a batch where the data set can give one, else a list for `collate`."""
    whole = getattr(images, "__getitems__", None)
    return whole(indices) if whole else [images[index] for index in indices]


@dataclass(frozen=True)
class InMemory:
    """A data set whose training batches are gathered, and augmented, on the device where its tensors are."""

    images: Tensor  # uint8 (M, 3, R, R)
    labels: Tensor  # int64 (M,)
    rows: Tensor  # int64 (N,) on the CPU: the place in `images` of each image of the data set
    augment: Callable[[Tensor, Tensor], Tensor] | None  # `AugmentedImages.augment_batch`

    def to(self, device: torch.device) -> "InMemory":
        """The same on another device; on their own the tensors are shared."""
        return InMemory(self.images.to(device), self.labels.to(device), self.rows, self.augment)

    def batch(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 `(B, 3, R, R)` and labels int64 `(B,)` at these rows int64 `(B,)`, augmented by their keys."""
        device = self.images.device
        rows = rows.to(device, non_blocking=device.type == "cuda")
        images, labels = self.images.index_select(0, rows), self.labels.index_select(0, rows)
        if self.augment is not None:
            images = self.augment(images, keys.to(device, non_blocking=device.type == "cuda"))
        return images, labels


def in_memory(images: LabelledImages) -> InMemory | None:
    """What a data set in memory is made of; None for any other, and where a subclass draws images in its own way."""
    chosen = []
    while type(images) is ChosenImages:
        chosen.append(images.indices)
        images = images.base
    if not isinstance(images, TensorImages) or not isinstance(images.labels, Tensor):
        return None
    kind, augment = type(images), None
    if (kind.__getitem__, kind.__getitems__) != (TensorImages.__getitem__, TensorImages.__getitems__):
        return None
    if images.augments:
        if not isinstance(images, AugmentedImages) or kind.draw is not AugmentedImages.draw:
            return None
        augment = images.augment_batch
    rows = torch.arange(len(images))
    for indices in reversed(chosen):
        rows = rows[indices]
    return InMemory(images.images, images.labels, rows, augment)


class WrappedImages(LabelledImages):
    """A data set of `(PIL image, label)` pairs, as torchvision's are, brought to one size when read."""

    def __init__(self, dataset: Any, resolution: Resolution, labels: Sequence[int] | Tensor) -> None:
        self.dataset, self.resolution, self.labels = dataset, resolution, labels

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = upright_rgb(self.dataset[index][0])
        return resample(image, centre_crop_box(image.size, self.resolution), self.resolution), int(self.labels[index])


def wrap(dataset: Any, resolution: Resolution) -> LabelledImages:
    """Any map-style data set of `(PIL image, label)` pairs as images of a data module.

    Each image is brought to `resolution` by the centre crop and filter of the other data modules. Labels are taken from
    `dataset.targets` or `dataset.labels`, without which every item is read once.

    Args:
        dataset: with `len` and indexing; labels are whole numbers from 0 on, or None for images without.
        resolution: side R, or rows and columns.

    Raises:
        UserError: an item is no pair of an image and a label.
    """
    known = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
    if known is None:
        try:
            known = [label for _, label in (dataset[index] for index in range(len(dataset)))]
        except (TypeError, ValueError) as error:
            raise UserError(f"wrap: {type(dataset).__name__} does not give pairs of image and label") from error
    labels = torch.tensor([NO_LABEL if label is None else int(label) for label in known])
    return WrappedImages(dataset, resolution, labels)
