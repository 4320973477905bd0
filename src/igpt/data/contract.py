"""What igpt relies on in the images and labels that others give, as quick checks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from igpt.system import UserError

NO_LABEL = -1


def check_item(item: object, resolution: int) -> None:
    """Raise a UserError unless an item of a data set is a pair of an image uint8 `(3, R, R)` and a whole number."""
    if not isinstance(item, tuple) or len(item) != 2:
        raise UserError(f"an item is {type(item).__name__}, not a pair of image and label")
    image, label = item
    wanted = f"uint8 (3, {resolution}, {resolution})"
    if not isinstance(image, Tensor):
        raise UserError(f"an image is {type(image).__name__}, not a tensor {wanted}")
    if image.dtype != torch.uint8 or image.shape != (3, resolution, resolution):
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
