"""What counts as the features of a layer: the choices that change a probe's number (paper, section 2.4)."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from igpt.system import UserError


@dataclass(frozen=True)
class FeatureOptions:
    """How hidden states become one feature vector an image and layer.

    Args:
        norm: "normed" takes the states behind the norm that the next block begins with, as the paper does; "raw" takes
            the residual stream itself.
        grid: the mean is taken in each cell of a grid x grid division of the picture, and the cells' means stand one
            after another; 1 is the paper's mean over all positions.
        masks: 0 shows BERT the whole image; n takes the mean of the features under n masks, drawn as in training.
    """

    norm: Literal["normed", "raw"] = "normed"
    grid: int = 1
    masks: int = 0

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """Raise a UserError where these do not fit images of so many rows and columns, or the objective."""
        if self.norm not in ("normed", "raw"):
            raise UserError(f"--norm {self.norm}; choose normed or raw")
        if not 1 <= self.grid <= min(shape):
            raise UserError(f"--grid {self.grid} must lie between 1 and {min(shape)}, the side of the images")
        if self.masks < 0:
            raise UserError(f"--masks {self.masks} must be 0 or more")
        if self.masks and causal:
            raise UserError(f"--masks {self.masks}: only BERT hides pixels; leave --masks out for this checkpoint")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for manifests and results."""
        return asdict(self)


def pooling(order: Tensor, grid: int, shape: tuple[int, int]) -> Tensor | None:
    """Averaging weights `(grid * grid, T)` of each cell over the sequence; None for the mean over all positions.

    Position i belongs to the pixel that its output predicts. Where a side is no multiple of `grid`, cells differ by a
    row or column.

    Args:
        order: raster index of each element of the sequence, int64 `(T,)` (`igpt.model.order.pixel_order`).
        grid: cells along each side.
        shape: rows and columns of the picture.
    """
    if grid == 1:
        return None
    rows, columns = shape
    row, column = order // columns * grid // rows, order % columns * grid // columns
    member = torch.nn.functional.one_hot(row * grid + column, grid * grid).T.float()
    return member / member.sum(1, keepdim=True)
