"""Grids of small images as PNG files: every pixel a crisp square, so that 8x8 pictures can be looked at."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageOps
from torch import Tensor

from igpt.errors import UserError
from igpt.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHITE = 255
MIN_SIDE = 64  # pixels an image of a grid is enlarged to, at least


def grid(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images uint8 `(N, 3, R, R)` in rows of `columns`, uint8 `(3, H, W)`, a white gap between and around them."""
    count, _, height, width = images.shape
    rows = math.ceil(count / columns)
    canvas = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), WHITE, dtype=torch.uint8)
    for index in range(count):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        canvas[:, y : y + height, x : x + width] = images[index]
    return canvas


def enlarge(picture: Tensor, resolution: int) -> Tensor:
    """Repeat pixels so that an image of `resolution` becomes at least 64 pixels wide."""
    factor = max(1, math.ceil(MIN_SIDE / resolution))
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def save_picture(picture: Tensor, path: str | Path) -> None:
    """Write uint8 `(3, H, W)` as an image file; the suffix chooses the format.

    Raises:
        UserError: the suffix names no format, or the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(temporary)
        except ValueError as error:
            raise UserError(f"cannot write {path}: {error}; give a file name that ends in .png") from error


def open_picture(path: str | Path, resolution: int) -> Tensor:
    """Any image file as uint8 `(3, R, R)`: the central square, resized bicubically, upright by its EXIF orientation.

    Raises:
        UserError: no such file, or it is not a picture.
    """
    try:
        with Image.open(path) as file:
            rgb = ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"picture {path} does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a picture that can be read; give a PNG or JPEG file") from error
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.resize((resolution, resolution), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return (
        torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
        .view(resolution, resolution, 3)
        .permute(2, 0, 1)
    )


def confusion_figure(counts: Tensor) -> "Figure":
    """A confusion matrix `(K, K)`, rows the true classes, as a figure; the numbers are written where they fit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(counts) <= 20:
        for row in range(len(counts)):
            for column in range(len(counts)):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=color, fontsize=7)
    return figure
