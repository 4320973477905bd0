"""Pictures as networks of others were trained to take them: their size, and their colours' mean and deviation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def sized(images: Tensor, shape: Sequence[int] | None, mode: str = "bilinear") -> Tensor:
    """Images uint8 `(B, 3, R, R)` as floating 0..255, resized to so many rows and columns; None leaves the size."""
    pictures = images.float()
    if shape is None or tuple(shape) == tuple(images.shape[2:]):
        return pictures
    return F.interpolate(pictures, list(shape), mode=mode, antialias=True, align_corners=False).clamp(0, 255)


def normed(pictures: Tensor, mean: Sequence[float], deviation: Sequence[float], scale: float = 1 / 255) -> Tensor:
    """Pictures `(B, 3, H, W)` of 0..255 times `scale`, less each colour's mean, over its deviation."""
    less, over = (torch.tensor(list(one), device=pictures.device)[:, None, None] for one in (mean, deviation))
    return (pictures * scale - less) / over
