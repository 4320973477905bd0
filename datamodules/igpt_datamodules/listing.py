"""Where many images are, in a few arrays, so that a loader's processes share the memory of their names."""

import operator
import os
from collections.abc import Iterable, Sequence
from typing import SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from igpt_datamodules.reading import Stored

PLAIN = -1  # offset of an image that is a file of its own


class Packed:
    """Strings in one buffer: a list has an object for each, whose page a forked process copies when it reads it."""

    def __init__(self, strings: Iterable[str]) -> None:
        pieces = [string.encode("utf-8", "surrogatepass") for string in strings]
        self.text = b"".join(pieces)
        self.ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)

    def __getitem__(self, index: int) -> str:
        return self.text[self.ends[index] : self.ends[index + 1]].decode("utf-8", "surrogatepass")


class StoredList(Sequence[Stored]):
    """Many `Stored`: each folder or tar is kept once, and of each image its name there and 20 bytes.

    Args:
        stored: the images.
    """

    def __init__(self, stored: Iterable[Stored]) -> None:
        places: dict[str, int] = {}
        names: list[str] = []
        rows: list[tuple[int, int, int]] = []
        for one in stored:
            place, name = (one.file, one.member) if one.member else split(one.file)
            names.append(name)
            rows.append((places.setdefault(place, len(places)), one.offset if one.member else PLAIN, one.size))
        self._places, self._names = Packed(places), Packed(names)
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self._where, self._spans = table[:, 0].astype(np.int32), np.ascontiguousarray(table[:, 1:])
        self._rows: NDArray[np.int64] | None = None  # of a part: which of the names are its own

    def __len__(self) -> int:
        return len(self._where if self._rows is None else self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Stored: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredList": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "Stored | StoredList":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = operator.index(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"image {row} of {len(self)}")
        row %= len(self)
        row = row if self._rows is None else int(self._rows[row])
        place, name = self._places[int(self._where[row])], self._names[row]
        offset, size = self._spans[row].tolist()
        return Stored(place + name) if offset == PLAIN else Stored(place, name, offset, size)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "StoredList":
        """Some of the images, in this order; the names themselves are shared."""
        part = object.__new__(StoredList)
        part.__dict__.update(self.__dict__)
        chosen = np.asarray(indices, dtype=np.int64)
        part._rows = chosen if self._rows is None else self._rows[chosen]
        return part


def split(file: str) -> tuple[str, str]:
    """A path as its folder, with the separator, and its name: together they are the path again."""
    name = os.path.basename(file)
    return file[: len(file) - len(name)], name
