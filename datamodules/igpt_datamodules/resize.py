"""Whole arrays of images to the model's resolution."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

CHUNK = 4096


def resize_all(images: Tensor, resolution: int) -> Tensor:
    """uint8 `(N, 3, H, W)` to `(N, 3, R, R)`: bicubic with antialiasing; unchanged where the size is right."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    size = [resolution, resolution]
    parts = [resize(part, size, InterpolationMode.BICUBIC, antialias=True) for part in images.split(CHUNK)]
    return torch.cat(parts)
