"""Distribution augmentation (Jun et al. 2020): pictures are transformed, and the network is told how.

Every transformation moves pixels or permutes the colour channels, so that it is a bijection on pictures. They come in
families, each drawn independently of the others and applied in the order of `FAMILIES`; the first member of a family is
the identity. What is drawn is one **row** a family: the number of a transformation among those of all families, the
identities left out, which have none (-1).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from igpt.system import UserError

SIZES = {"rotate": 4, "transpose": 2, "flip": 2, "colours": 6, "jigsaw": 24}  # of each family, its identity included
FAMILIES = tuple(SIZES)
NONE = -1  # the row of an identity


def _jigsaw(grid: Tensor) -> list[Tensor]:
    upper, lower = (half.chunk(2, 1) for half in grid.chunk(2, 0))
    quarters = [*upper, *lower]
    orders = itertools.permutations(range(4))
    return [torch.cat([torch.cat([quarters[i] for i in order[:2]], 1), torch.cat([quarters[i] for i in order[2:]], 1)])
            for order in orders]  # fmt: skip


MEMBERS: dict[str, Callable[[Tensor], list[Tensor]]] = {  # of a picture (R, C), each as a picture
    "rotate": lambda grid: [grid.rot90(turns) for turns in range(4)],
    "transpose": lambda grid: [grid, grid.T],
    "flip": lambda grid: [grid, grid.flip(1)],
    "colours": lambda grid: [grid] * 6,
    "jigsaw": _jigsaw,
}


class Transformations(NamedTuple):
    """All transformations of some families, by their rows; the last row is the identity, so that -1 finds it."""

    families: tuple[str, ...]
    places: Tensor  # int64 (N + 1, T): the pixel that comes to each place
    channels: Tensor  # int64 (N + 1, 3): the channel that becomes each

    def to(self, device: torch.device) -> "Transformations":
        """The same on a device."""
        return Transformations(self.families, self.places.to(device), self.channels.to(device))


def rows_of(families: Sequence[str]) -> dict[str, range]:
    """The rows of each family, identities left out: families in the order in which they are applied."""
    ordered = [family for family in FAMILIES if family in families]
    ends = list(itertools.accumulate(SIZES[family] - 1 for family in ordered))
    return {family: range(end - SIZES[family] + 1, end) for family, end in zip(ordered, ends, strict=True)}


def condition_names(families: Sequence[str] | None, classes: int | None) -> list[str]:
    """What each vector that may be added to sos stands for: first the classes, then the rows of the families."""
    of_classes = [f"class {label} of {classes}" for label in range(classes or 0)]
    members = [f"{family} {n}" for family in rows_of(families or ()) for n in range(1, SIZES[family])]
    return of_classes + members


def check_families(families: Sequence[str]) -> None:
    """Raise a UserError for families that are none, or given twice."""
    for family in families:
        if family not in FAMILIES or list(families).count(family) > 1:
            raise UserError(f"augment: {family!r} is unknown or given twice; choose from {', '.join(FAMILIES)}")


def check_shape(families: Sequence[str], shape: tuple[int, int]) -> None:
    """Raise a UserError for families that pictures of so many rows and columns do not allow."""
    rows, columns = shape
    swapping = [family for family in families if family in ("rotate", "transpose")]
    if swapping and rows != columns:
        raise UserError(f"augment: {swapping[0]} swaps the sides of pictures, which are {rows}x{columns}; leave it out")
    if "jigsaw" in families and (rows % 2 or columns % 2):
        raise UserError(f"augment: jigsaw needs pictures of even sides, not {rows}x{columns}; leave it out")


def transformations(families: Sequence[str], shape: tuple[int, int]) -> Transformations:
    """The tables of some families for pictures of so many rows and columns.

    Raises:
        UserError: as of `check_shape`.
    """
    check_shape(families, shape)
    grid = torch.arange(shape[0] * shape[1]).view(shape)
    ordered = tuple(rows_of(families))
    places = [one.flatten() for family in ordered for one in MEMBERS[family](grid)[1:]]
    orders = list(itertools.permutations(range(3)))
    same = orders[0]
    channels = [one for family in ordered for one in (orders if family == "colours" else [same] * SIZES[family])[1:]]
    return Transformations(ordered, torch.stack([*places, grid.flatten()]), torch.tensor([*channels, same]))


def draw_rows(uniform: Tensor, families: Sequence[str], identity: float | None = None) -> Tensor:
    """One row a family of each image, int64 `(B, F)`, from numbers `(B, F)` uniform in [0, 1).

    Args:
        families: F of them.
        identity: share of the images that stay as they are: each family then keeps its identity with the F-th root of
            it, and has its other members equally often. None draws all members of a family equally often, the identity
            among them.
    """
    rows = []
    for column, (family, known) in zip(uniform.unbind(1), rows_of(families).items(), strict=True):
        kept = 1 / SIZES[family] if identity is None else identity ** (1 / len(families))
        number = ((column - kept) / max(1 - kept, 1e-9) * len(known)).floor().long()  # below 0: the identity
        rows.append(torch.where(column < kept, NONE, known.start + number.clamp(0, len(known) - 1)))
    return torch.stack(rows, 1) if rows else uniform.new_zeros(len(uniform), 0, dtype=torch.int64)


def transform(images: Tensor, rows: Tensor, known: Transformations) -> Tensor:
    """Images `(B, 3, R, C)` transformed by one row of each family, int64 `(B, F)`, one family after another."""
    pixels = images.flatten(2)  # (B, 3, T)
    for row in rows.unbind(1):
        channels, places = known.channels[row], known.places[row]  # (B, 3), (B, T)
        pixels = pixels.gather(1, channels[..., None].expand_as(pixels))
        pixels = pixels.gather(2, places[:, None].expand_as(pixels))
    return pixels.view_as(images)
