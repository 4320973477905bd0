"""From palette tokens to RGB: how the colours of each cell are distributed, a cell being the colours of one token.

Every RGB picture x has one token at each pixel, that of the nearest palette colour. So

    p(x) = p(tokens) prod_i q(rgb_i | token_i)

is a distribution over RGB pictures as soon as each q(. | token) is one over the token's cell. The functions take the
table of nearest colours, so that they hold for any set of colours: 2^24 in practice, a few in tests.

Shapes: C colours by their codes (`red << 16 | green << 8 | blue`), K palette colours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.palette.counting import ColorCounts, pack
from igpt.palette.palette import Palette

ROUNDS = 100  # of EM; the share then stands still to many digits

Floats = NDArray[np.float64]
Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class CellColors:
    """q(colour | token): how often each colour of the cell was seen, mixed with the uniform distribution over the cell.

    A cell in which nothing was seen is uniform.

    Args:
        table: token of each colour, `(C,)`.
        sizes: colours of each cell, float64 `(K,)`.
        counts: how often each colour was seen, `(C,)`.
        totals: its sums over the cells, float64 `(K,)`.
        share: of what was seen in the mixture, at least 0 and below 1.
    """

    table: Codes
    sizes: Floats
    counts: Codes
    totals: Floats
    share: float

    def parts(self, codes: Codes) -> tuple[Floats, Floats]:
        """Probability of each colour `(...)` given its token: as seen, and uniform."""
        cell = self.table[codes]
        uniform, total = 1 / self.sizes[cell], self.totals[cell]
        seen = np.where(total > 0, self.counts[codes] / np.maximum(total, 1), uniform)
        return seen, uniform

    def nats(self, codes: Codes) -> tuple[Floats, Floats]:
        """-log q of each colour `(...)` given its token: by the mixture, and by the uniform distribution."""
        seen, uniform = self.parts(codes)
        return -np.log(self.share * seen + (1 - self.share) * uniform), -np.log(uniform)

    def image_nats(self, images: Tensor) -> list[Tensor]:
        """`nats` of the pixels of images uint8 `(B, 3, R, R)`, each float64 `(B, T)` on the CPU in raster order."""
        return [torch.from_numpy(nats).flatten(1) for nats in self.nats(pack(images.cpu()).numpy())]


def cell_sizes(table: Codes, k: int) -> Floats:
    """Number of colours that have each token, float64 `(k,)`."""
    return np.bincount(table, minlength=k).astype(np.float64)


def fit_cells(table: Codes, k: int, train: Codes, val: Codes) -> CellColors:
    """Count the colours of training pixels `(C,)`; the share that they get is the likeliest for those of validation.

    The share is found by EM. One pixel more of each kind keeps it below 1, so that no colour is impossible.
    """
    totals = np.zeros(k)
    seen = np.flatnonzero(train)
    np.add.at(totals, table[seen], train[seen])
    cells, found = CellColors(table, cell_sizes(table, k), train, totals, 0.0), np.flatnonzero(val)
    return CellColors(table, cells.sizes, train, totals, likeliest_share(*cells.parts(found), val[found]))


def likeliest_share(one: Floats, other: Floats, counts: Codes) -> float:
    """The share of `one` in a mixture of two distributions, from their probabilities of what was seen so often."""
    share, pixels = 0.5, counts.sum(dtype=np.float64)
    for _ in range(ROUNDS):
        of_one = share * one / (share * one + (1 - share) * other)
        share = float((1 + counts @ of_one) / (2 + pixels))
    return share


def cells_of(palette: Palette, train: ColorCounts, val: ColorCounts) -> CellColors:
    """`fit_cells` of a palette, over all 2^24 colours."""
    return fit_cells(palette.table.cpu().numpy(), palette.k, train.counts, val.counts)
