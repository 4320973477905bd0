"""Where positions lie in a picture, and which of them see which.

Shapes: T positions, Q queries and K keys.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from igpt.model.attention.patterns import Pair, Pattern


@dataclass(frozen=True)
class Picture:
    """Where the positions of a sequence lie in the picture.

    Args:
        row: of each position, int64 `(T,)`.
        column: of each.
        shape: rows and columns.
        causal: whether a position sees none that come later.
    """

    row: Tensor
    column: Tensor
    shape: tuple[int, int]
    causal: bool

    def seen(self, pattern: Pattern, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether queries see keys, both given as positions that broadcast: by the pattern, and themselves always."""
        at = Pair(self.row[queries], self.column[queries], self.row[keys], self.column[keys], self.shape[1])
        seen = pattern.sees(at)
        return (seen & (keys <= queries) if self.causal else seen) | (keys == queries)

    def offsets(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How many rows and columns keys lie before queries, as one number below `(2 R - 1) (2 C - 1)`."""
        rows, columns = self.row[queries] - self.row[keys], self.column[queries] - self.column[keys]
        return (rows + self.shape[0] - 1) * (2 * self.shape[1] - 1) + columns + self.shape[1] - 1

    def to(self, device: torch.device) -> "Picture":
        """The same on a device."""
        return replace(self, row=self.row.to(device), column=self.column.to(device))
