"""Image grids, heat maps and confusion matrices."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igpt.system import in_one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 128  # mid-grey between pictures: white ones have an edge, too
WIDTH = 1000  # pixels that a grid is about wide
TEXT = 16  # pixels, of letters


def grid(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images uint8 `(N, 3, R, R)` in rows of `columns`, uint8 `(3, H, W)`, a grey gap between and around them."""
    count, _, height, width = images.shape
    rows = math.ceil(count / columns)
    canvas = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), GAP, dtype=torch.uint8)
    for index in range(count):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        canvas[:, y : y + height, x : x + width] = images[index]
    return canvas


def scale_for(picture: Tensor, width: int = WIDTH) -> int:
    """How often each pixel of a picture `(3, H, W)` is repeated, so that it is about `width` pixels wide."""
    return max(1, width // picture.shape[2])


def enlarge(picture: Tensor, factor: int | None = None) -> Tensor:
    """Repeat each pixel of `(3, H, W)` `factor` times along both sides; None makes it about 1,000 pixels wide."""
    factor = factor or scale_for(picture)
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def text_image(height: int, width: int, words: list[tuple[int, int, str]]) -> Tensor:
    """Words at `(x, y)` in black on white, uint8 `(3, height, width)`."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(TEXT)
    for x, y, text in words:
        ImageDraw.Draw(canvas).text((x, y), text, fill="black", font=font)
    return torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def with_headings(picture: Tensor, names: list[str]) -> Tensor:
    """A picture `(3, H, W)` under the names of its columns, which are of equal width; a name too long is cut."""
    column = picture.shape[2] / len(names)
    fitting = max(1, int(column / (0.55 * TEXT)))
    words = [(round(index * column) + 4, 3, name[:fitting]) for index, name in enumerate(names)]
    return torch.cat([text_image(TEXT + 10, picture.shape[2], words), picture], dim=1)


def beside(picture: Tensor, lines: list[list[str]], width: int = 260) -> Tensor:
    """A picture `(3, H, W)` of equally high rows, with the `lines` of each row at its right."""
    row = picture.shape[1] / len(lines)
    words = [(10, round(index * row) + 6 + (TEXT + 6) * line, text[: int(width / (0.55 * TEXT))])
             for index, texts in enumerate(lines) for line, text in enumerate(texts)]  # fmt: skip
    return torch.cat([picture, text_image(picture.shape[1], width, words)], dim=2)


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


def confusion_figure(counts: Tensor, names: Sequence[str] = ()) -> "Figure":
    """A confusion matrix as a figure of its own; see `draw_confusion`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    draw_confusion(figure.subplots(), counts, names)
    return figure


def draw_confusion(axes: Any, counts: Tensor, names: Sequence[str] = ()) -> None:
    """Draw a confusion matrix `(K, K)` on matplotlib axes: rows are true classes, in per cent of each row.

    Args:
        axes: to draw on.
        counts: images of class i that were taken for class j.
        names: of the K classes; they and the numbers stand there where they fit, for up to 20 classes.
    """
    percent = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(percent.numpy(), vmin=0, vmax=100, cmap="Blues")
    axes.grid(visible=False)
    axes.set(xlabel="predicted class; % of the images of the true class", ylabel="true class")
    if len(counts) <= 20:
        if len(names) == len(counts):
            drawn = [in_one_line(name)[:20].encode("latin-1", "replace").decode("latin-1") for name in names]
            axes.set_xticks(range(len(drawn)), drawn, rotation=45, ha="right", fontsize=7, parse_math=False)
            axes.set_yticks(range(len(drawn)), drawn, fontsize=7, parse_math=False)
        for row, column in counts.nonzero().tolist():
            value = float(percent[row, column])
            color = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=7)
