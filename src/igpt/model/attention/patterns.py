"""Patterns of attention: which positions see which, as functions of their rows and columns.

A position is where the network predicts a pixel; what it brings is the pixel before it in the sequence (AR) or that
pixel itself (BERT). Every position sees itself; AR sees nothing that comes later in the sequence, whatever the pattern.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from igpt.system import UserError

OPTION = "transformer.attention"


@dataclass(frozen=True)
class Pair:
    """Places of queries and of keys, as tensors that broadcast: `(Q, 1)` and `(1, K)`, or one of each.

    Args:
        columns: of the picture.
    """

    row: Tensor
    column: Tensor
    key_row: Tensor
    key_column: Tensor
    columns: int

    @property
    def index(self) -> Tensor:
        """Raster index of the query."""
        return self.row * self.columns + self.column

    @property
    def key_index(self) -> Tensor:
        """Raster index of the key."""
        return self.key_row * self.columns + self.key_column


@dataclass(frozen=True)
class Pattern:
    """What one head of a layer sees; a subclass says it, and checks its numbers against the picture."""

    name: ClassVar[str]

    def sees(self, at: Pair) -> Tensor:
        """Whether the query may see the key, bool, broadcast over both."""
        raise NotImplementedError

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """Raise a UserError where the pattern does not fit pictures of `shape` (rows, columns)."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a config."""
        return {"pattern": self.name} | asdict(self)


@dataclass(frozen=True)
class Dense(Pattern):
    """Everything, as in the paper."""

    name = "dense"

    def sees(self, at: Pair) -> Tensor:
        """All."""
        return (at.row == at.row) & (at.key_row == at.key_row)


@dataclass(frozen=True)
class Rows(Pattern):
    """The k rows before and the own one (Image Transformer's local blocks, Parmar et al. 2018); BERT: also k after."""

    name = "rows"
    k: int = 4

    def sees(self, at: Pair) -> Tensor:
        """Few rows apart."""
        return ((at.row - at.key_row).abs() <= self.k) & (at.key_column == at.key_column)

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """At least the own row."""
        at_least("rows", "k", self.k, 0)


@dataclass(frozen=True)
class Window(Pattern):
    """A neighbourhood of k rows and k columns on each side (Ramachandran et al. 2019), cut by causality."""

    name = "window"
    k: int = 4

    def sees(self, at: Pair) -> Tensor:
        """Few rows and few columns apart."""
        return ((at.row - at.key_row).abs() <= self.k) & ((at.column - at.key_column).abs() <= self.k)

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """At least the position itself."""
        at_least("window", "k", self.k, 0)


Part = Literal["row", "column", "both"]


@dataclass(frozen=True)
class Axial(Pattern):
    """The own row or the own column (Ho et al. 2019); both in turn, a layer each, where `part` is left out."""

    name = "axial"
    part: Part = "both"

    def sees(self, at: Pair) -> Tensor:
        """The same row, the same column, or either."""
        return either(self.part, at.row == at.key_row, at.column == at.key_column)


@dataclass(frozen=True)
class Strided(Pattern):
    """Sparse Transformer, strided (Child et al. 2019): the last `stride` positions, and every `stride`-th one.

    Positions are counted in raster order; a stride of a row's length, which is taken where none is given, is the
    picture's column.
    """

    name = "strided"
    stride: int | None = None
    part: Part = "both"

    def sees(self, at: Pair) -> Tensor:
        """Near in raster order, or a multiple of the stride away."""
        stride, apart = self.stride or at.columns, (at.index - at.key_index).abs()
        return either(self.part, apart < stride, apart % stride == 0)

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """The stride lies within the picture."""
        check_stride("strided", self.stride, shape)


@dataclass(frozen=True)
class Fixed(Pattern):
    """Sparse Transformer, fixed (Child et al. 2019): the own block of `stride` positions, and the last `c` of each.

    What the last `c` positions of a block gather, all later ones see.
    """

    name = "fixed"
    stride: int | None = None
    c: int = 8
    part: Part = "both"

    def sees(self, at: Pair) -> Tensor:
        """In the same block, or one that sums up its block."""
        stride = self.stride or at.columns
        same = at.index // stride == at.key_index // stride
        return either(self.part, same, (at.key_index % stride >= stride - self.c) & (at.index == at.index))

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """The stride lies within the picture, the summary within the stride."""
        check_stride("fixed", self.stride, shape)
        at_least("fixed", "c", self.c, 1)
        if self.c > (self.stride or shape[1]):
            raise UserError(f"{OPTION}: fixed: c {self.c} is more than its stride {self.stride or shape[1]}; lower it")


@dataclass(frozen=True)
class LSH(Pattern):
    """Positions with similar vectors, found by hashing (Reformer, Kitaev et al. 2020; `igpt.model.attention.lsh`).

    Of a whole layer, whose queries are its keys.

    Args:
        buckets: of each round; even, since rotated vectors and their negatives make them.
        rounds: of hashing, each with rotations of its own. More rounds come closer to dense attention, and take longer.
        chunk: ranks of a bucket that are attended to together. A position sees the `chunk` positions of its bucket
            before it, or all if there are fewer, and at most `2 * chunk - 1`.
    """

    name = "lsh"
    buckets: int = 16
    rounds: int = 2
    chunk: int = 64

    def check(self, shape: tuple[int, int], causal: bool) -> None:
        """Numbers that make a hashing, in a causal network."""
        for field in ("buckets", "rounds", "chunk"):
            at_least("lsh", field, getattr(self, field), 1)
        if self.buckets % 2:
            raise UserError(f"{OPTION}: lsh: buckets is {self.buckets}; it must be even")
        if not causal:
            raise UserError(f"{OPTION}: lsh is defined for AR alone; choose another pattern for BERT")


def either(part: Part, row: Tensor, column: Tensor) -> Tensor:
    """The row part, the column part, or both."""
    return row if part == "row" else column if part == "column" else row | column


def at_least(pattern: str, name: str, value: Any, least: int) -> None:
    """Raise a UserError for a number that is too small, or is none."""
    if type(value) is not int or value < least:
        raise UserError(f"{OPTION}: {pattern}: {name} is {value!r}; it must be a whole number of at least {least}")


def check_stride(pattern: str, stride: int | None, shape: tuple[int, int]) -> None:
    """Raise a UserError for a stride that is longer than the picture."""
    pixels = shape[0] * shape[1]
    if stride is not None:
        at_least(pattern, "stride", stride, 1)
        if stride > pixels:
            raise UserError(
                f"{OPTION}: {pattern}: stride {stride} is larger than the picture, {shape[0]}x{shape[1]} = {pixels} "
                "pixels; lower it, or leave it out for a row"
            )


PATTERNS: dict[str, type[Pattern]] = {kind.name: kind for kind in (Dense, Rows, Window, Axial, Strided, Fixed, LSH)}
IN_TURN = ("axial", "strided", "fixed")  # their parts become a layer each where no part is given


def pattern_of(entry: Any) -> Pattern:
    """One pattern out of its form in a config.

    Raises:
        UserError: no such pattern, or it does not have such a field.
    """
    given = dict(entry) if isinstance(entry, dict) else {"pattern": entry}
    name = given.pop("pattern", None)
    if not isinstance(name, str) or name not in PATTERNS:
        raise UserError(f"{OPTION}: there is no pattern {name!r}; choose {', '.join(PATTERNS)}")
    known = [one.name for one in fields(PATTERNS[name])]
    wrong = [key for key in given if key not in known]
    if wrong:
        raise UserError(f"{OPTION}: {name} has no {wrong[0]!r}; it has {', '.join(known) or 'no fields'}")
    if given.get("part", "both") not in ("row", "column", "both"):
        raise UserError(f"{OPTION}: {name}: part is {given['part']!r}; choose row, column or both")
    return PATTERNS[name](**given)


def patterns_of(attention: Sequence[Any] | None) -> list[list[Pattern]]:
    """The patterns of a config, a list for each layer, repeated over the layers; in it one for each head, repeated."""
    if attention is None:
        return [[Dense()]]
    if not isinstance(attention, Sequence) or isinstance(attention, str) or not attention:
        raise UserError(f"{OPTION} must be a list of patterns, such as [{{pattern: rows, k: 4}}]")
    layers: list[list[Pattern]] = []
    for entry in attention:
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            if not entry:
                raise UserError(f"{OPTION}: a layer has an empty list of heads' patterns; name at least one")
            layers.append([pattern_of(head) for head in entry])
            if any(isinstance(head, LSH) for head in layers[-1]):
                raise UserError(f"{OPTION}: lsh is of a whole layer; take it out of the list of heads")
        elif isinstance(entry, dict) and entry.get("pattern") in IN_TURN and "part" not in entry:
            layers += [[pattern_of({**entry, "part": part})] for part in ("row", "column")]
        else:
            layers.append([pattern_of(entry)])
    return layers
