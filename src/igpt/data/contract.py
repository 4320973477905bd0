"""Checks that the splits, images and labels of a data module have the types, shapes and values igpt relies on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igpt.data.imagefile import Resolution, shape_of
from igpt.data.images import NO_LABEL, LabelledImages, TensorImages
from igpt.data.splits import SPLITS
from igpt.palette import GRID
from igpt.system import UserError


def check_item(item: object, resolution: Resolution, stride: int = 1) -> None:
    """Raise a UserError unless an item of a data set is a pair of an image uint8 `(3, R, R)` and a whole number.

    Where the data are VQ tokens, of `stride` pixels a side each, an image is their grid, int16 `(1, R / 4, R / 4)`.
    """
    if not isinstance(item, tuple) or len(item) != 2:
        raise UserError(f"an item is {type(item).__name__}, not a pair of image and label")
    image, label = item
    rows, columns = shape_of(resolution)
    shape, dtype = ((3, rows, columns), torch.uint8) if stride == 1 else ((1, rows // stride, columns // stride), GRID)
    wanted = f"{str(dtype).removeprefix('torch.')} {shape}"
    if not isinstance(image, Tensor):
        raise UserError(f"an image is {type(image).__name__}, not a tensor {wanted}")
    if image.dtype != dtype or image.shape != shape:
        raise UserError(f"an image is {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}, not {wanted}")
    if not hasattr(label, "__index__"):
        raise UserError(f"a label is {type(label).__name__}, not a whole number")


def check_labels(labels: Any, num_classes: int) -> None:
    """Raise a UserError unless labels are whole numbers `(N,)` from -1 on, and below `num_classes` unless that is 0."""
    try:
        known = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"labels are no array ({error})") from error
    if known.size == 0:
        return
    if known.ndim != 1 or known.dtype.kind not in "iu":
        raise UserError(f"labels are {known.dtype} {known.shape}, not int64 (N,)")
    low, high = int(known.min()), int(known.max())
    if low < NO_LABEL or (num_classes and high >= num_classes):
        outside = low if low < NO_LABEL else high
        raise UserError(f"label {outside} is neither a class, 0 to {num_classes - 1}, nor {NO_LABEL} for none")


def check_splits(loaded: object, resolution: Resolution, num_classes: int, stride: int = 1) -> None:
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
            check_images(images, resolution, num_classes, stride)
        except UserError as error:
            raise UserError(f"a split {name} in which {error}") from error


def check_images(images: LabelledImages, resolution: Resolution, num_classes: int, stride: int = 1) -> None:
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
    check_item(item, resolution, stride)
