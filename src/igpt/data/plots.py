"""Image grids, heat maps and confusion matrices."""

import math
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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


def enlarge(picture: Tensor, resolution: int, side: int = MIN_SIDE) -> Tensor:
    """Repeat pixels so that an image of `resolution` becomes at least `side` pixels wide."""
    factor = max(1, math.ceil(side / resolution))
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


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
