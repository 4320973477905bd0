"""What the API gives back: pictures as arrays, classes with their names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igpt.data import grid, save_picture
from igpt.system import UserError

WIDTH = 600  # pixels that a grid is about wide


class Pictures(np.ndarray[Any, np.dtype[np.uint8]]):
    """Pictures as a uint8 array `(..., R, R, 3)`, with ways to look at them; a notebook shows them as a grid."""

    @classmethod
    def of(cls, images: Tensor) -> "Pictures":
        """From uint8 `(..., 3, R, R)` on any device."""
        return np.ascontiguousarray(images.movedim(-3, -1).cpu().numpy()).view(cls)

    def to_pil(self) -> Any:
        """An image of PIL, or lists of them nested like the array's leading dimensions."""
        self._check()
        return Image.fromarray(np.asarray(self)) if self.ndim == 3 else [part.to_pil() for part in self]

    def grid(self, columns: int | None = None) -> Image.Image:
        """All of them in one picture, small ones enlarged.

        Args:
            columns: pictures a row; if left out the array's last leading dimension, so that completions have a row an
                image, or about a square.
        """
        return Image.fromarray(self._grid(columns).permute(1, 2, 0).contiguous().numpy())

    def save(self, path: str | Path, columns: int | None = None) -> None:
        """Write `grid` as a picture file."""
        save_picture(self._grid(columns), path)

    def _grid(self, columns: int | None) -> Tensor:
        self._check()
        flat = (
            torch.from_numpy(np.array(self)).flatten(0, -4) if self.ndim > 3 else torch.from_numpy(np.array(self)[None])
        )
        if columns is None:
            columns = self.shape[-4] if self.ndim > 4 else max(1, round(math.sqrt(len(flat))))
        picture = grid(flat.permute(0, 3, 1, 2), columns)
        factor = max(1, WIDTH // picture.shape[2])
        return picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)

    def _check(self) -> None:
        if self.ndim < 3 or self.shape[-1] != 3 or self.dtype != np.uint8 or not self.size:
            raise UserError(f"an array {self.dtype} {self.shape} is no pictures; they are uint8 (..., R, R, 3)")

    def _repr_png_(self) -> bytes:
        content = BytesIO()
        self.grid().save(content, "PNG")
        return content.getvalue()


@dataclass(frozen=True)
class Predictions:
    """The classes of images.

    Args:
        probs: float32 `(N, K)`; each row sums to 1. `numpy.asarray` of this object gives them, too.
        labels: int64 `(N,)`: the predicted classes. Where a fine-tuned BERT votes over masks, they may differ from the
            largest of the mean probabilities.
        names: of the K classes; numbers where the checkpoint knows none.
    """

    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.probs, dtype=dtype)

    @property
    def classes(self) -> list[str]:
        """The name of each image's class."""
        return [self.names[label] for label in self.labels.tolist()]

    def top(self, count: int = 1) -> list[list[tuple[str, float]]]:
        """For each image its class and the likeliest others, `count` in all, as pairs of name and probability."""
        ranked = self.probs.copy()
        ranked[np.arange(len(self)), self.labels] = np.inf  # the predicted class stands first
        order = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
        return [
            [(self.names[label], float(probs[label])) for label in row.tolist()]
            for row, probs in zip(order, self.probs, strict=True)
        ]
