"""Grids of small images as PNG files: every pixel a crisp square, so that 8x8 pictures can be looked at."""

import math
import os
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igpt.data.imagefile import BadImageError, decode_rgb
from igpt.system import UserError, atomic_path, check_not_read, check_own

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHITE = 255
MIN_SIDE = 64  # pixels an image of a grid is enlarged to, at least
FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def grid(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images uint8 `(N, 3, R, R)` in rows of `columns`, uint8 `(3, H, W)`, a white gap between and around them."""
    count, _, height, width = images.shape
    rows = math.ceil(count / columns)
    canvas = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), WHITE, dtype=torch.uint8)
    for index in range(count):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        canvas[:, y : y + height, x : x + width] = images[index]
    return canvas


def enlarge(picture: Tensor, resolution: int, side: int = MIN_SIDE) -> Tensor:
    """Repeat pixels so that an image of `resolution` becomes at least `side` pixels wide."""
    factor = max(1, math.ceil(side / resolution))
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def check_format(path: str | Path) -> None:
    """Raise a UserError unless the suffix of --out is one that `save_picture` takes; for use before any work."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f"--out {path} names no picture format; give a file name that ends in .png")


def check_pair(
    picture: str | Path, made: Callable[[NDArray[np.generic]], bool], read: Iterable[str | Path | None]
) -> None:
    """Look whether --out and the array of the same name, ending in .npy, may be written; for use before any work.

    A picture is known by the array beside it.

    Args:
        picture: that is to be written.
        made: whether the command writes such arrays.
        read: files that the command is given.

    Raises:
        UserError: see `check_format`; or one of the two files is read by this command, or is not of it.
    """
    check_format(picture)
    array = Path(picture).with_suffix(".npy")
    check_not_read((picture, array), read)
    for target in (array, picture):
        check_own(target, lambda _: made(np.load(array, mmap_mode="r")))


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


def heat(values: Tensor, top: float) -> Tensor:
    """Values `(N, R, R)` as colours uint8 `(N, 3, R, R)`, from black at 0 to pale yellow at `top` (magma)."""
    from matplotlib import colormaps

    colours = colormaps["magma"]((values / top).numpy(), bytes=True)[..., :3]
    return torch.from_numpy(colours.copy()).permute(0, 3, 1, 2)


def heat_legend(top: float, width: int, label: str) -> Tensor:
    """The scale of `heat` as a horizontal bar with numbers, uint8 `(3, H, width)`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=((width + 0.5) / 100, 0.605), dpi=100)  # halves of a pixel are cut off
    axes = figure.add_axes((0.06, 0.65, 0.88, 0.25))
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), "magma"), cax=axes, orientation="horizontal")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7, pad=1)
    pixels = BytesIO()
    figure.savefig(pixels, format="rgba")
    rgba = torch.frombuffer(bytearray(pixels.getvalue()), dtype=torch.uint8).view(-1, width, 4)
    return rgba[..., :3].permute(2, 0, 1)


def open_picture(path: str | Path, resolution: int) -> Tensor:
    """Any image file as uint8 `(3, R, R)`: the central square, resized bicubically; decoded as by `decode_rgb`.

    Raises:
        UserError: no such file, or it is not a picture.
    """
    return open_square(path, resolution, "RGB", Image.Resampling.BICUBIC)


def open_mask(path: str | Path, resolution: int) -> Tensor:
    """Any image file as bool `(R, R)`, True where it is lighter than medium grey; cut as by `open_picture`.

    Resized to the nearest pixel, so that what is drawn with a hard edge keeps it.

    Raises:
        UserError: no such file, or it is not a picture.
    """
    return open_square(path, resolution, "L", Image.Resampling.NEAREST)[0] > WHITE / 2


def open_square(path: str | Path, resolution: int, mode: str, resampling: Image.Resampling) -> Tensor:
    """The central square of an image file, decoded as by `decode_rgb`, as uint8 `(channels, R, R)`.

    Raises:
        UserError: no such file, or it is not a picture.
    """
    if not os.path.lexists(path):
        raise UserError(f"picture {path} does not exist")
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for its other end
            raise ValueError("no regular file")
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no fault of the pixels
            whole = decode_rgb(stream).convert(mode)
    except Exception as error:  # on broken files decoders raise anything, from SyntaxError to struct.error
        why = f" ({error})" if isinstance(error, BadImageError) else ""
        raise UserError(f"{path} is not a picture that can be read{why}; give a PNG or JPEG file") from error
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    square = whole.resize((resolution, resolution), resampling, box=(left, top, left + side, top + side))
    values = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return values.view(resolution, resolution, -1).permute(2, 0, 1)


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
