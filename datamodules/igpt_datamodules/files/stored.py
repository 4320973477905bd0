"""`Stored`, an image file or a member of a tar; memory-saving lists of them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igpt.data import BadImageError, decode_rgb

PLAIN = -1  # offset of an image that is a file of its own

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jxl"),
)


def shown(name: str) -> str:
    """A path as messages show it: unprintable characters as '?'."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


class Picture(Protocol):
    """An image that is still encoded: a file, or whatever else has a name and gives bytes."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def open(self) -> BinaryIO:
        """The bytes as a stream; an OSError or BadImageError where there are none."""


@runtime_checkable
class Pictures(Protocol):
    """Many of them, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Pictures":
        """Some of the images, in this order."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an image's bytes are: a file, or `size` bytes from `offset` on inside a tar."""

    file: str
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """What reports call it: FILE, or TAR:MEMBER; unprintable characters are shown as '?'."""
        return shown(f"{self.file}:{self.member}" if self.member else self.file)

    def open(self) -> BinaryIO:
        """The bytes as a stream; nothing of a tar is ever unpacked to disk.

        Raises:
            BadImageError: it is a pipe or a device, whose opening or reading would never end.
        """
        if os.path.exists(self.file) and not os.path.isfile(self.file):
            raise BadImageError("no regular file")
        if not self.member:
            return open(self.file, "rb")
        with open(self.file, "rb") as tar:
            tar.seek(self.offset)
            there = os.fstat(tar.fileno()).st_size - self.offset  # a header may announce more than there is
            return BytesIO(tar.read(max(0, min(self.size, there))))


def read_rgb(stored: Picture, background: str = "white") -> Image.Image:
    """Decode to RGB; see `igpt.data.decode_rgb`.

    Raises:
        BadImageError: it cannot be opened, or gives no picture.
    """
    try:
        with stored.open() as stream:
            return decode_rgb(stream, background)
    except OSError as error:
        raise BadImageError(f"cannot be opened: {error.strerror}") from error


class Packed:
    """Strings in one buffer: of a list's objects a forked process copies the pages as it reads them."""

    def __init__(self, strings: Iterable[str]) -> None:
        pieces = [string.encode("utf-8", "surrogatepass") for string in strings]
        self.text = b"".join(pieces)
        self.ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)

    def __getitem__(self, index: int) -> str:
        return self.text[self.ends[index] : self.ends[index + 1]].decode("utf-8", "surrogatepass")


class StoredList:
    """Many `Stored` in a few arrays, whose memory forked processes share: each folder or tar is kept once.

    Of each image there are its name and 20 bytes.
    """

    def __init__(self, stored: Iterable[Stored]) -> None:
        places: dict[str, int] = {}
        names: list[str] = []
        rows: list[tuple[int, int, int]] = []
        for one in stored:
            place, name = (one.file, one.member) if one.member else folder_and_name(one.file)
            names.append(name)
            rows.append((places.setdefault(place, len(places)), one.offset if one.member else PLAIN, one.size))
        self._places, self._names = Packed(places), Packed(names)
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self._where, self._spans = table[:, 0].astype(np.int32), np.ascontiguousarray(table[:, 1:])
        self._rows: NDArray[np.int64] | None = None  # of a part: which of the names are its own

    def __len__(self) -> int:
        return len(self._where if self._rows is None else self._rows)

    def __getitem__(self, index: int) -> Stored:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        row = index % len(self) if self._rows is None else int(self._rows[index])
        place, name = self._places[int(self._where[row])], self._names[row]
        offset, size = self._spans[row].tolist()
        return Stored(place + name) if offset == PLAIN else Stored(place, name, offset, size)

    def __iter__(self) -> Iterator[Stored]:
        return map(self.__getitem__, range(len(self)))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "StoredList":
        """Some of the images, in this order; the names themselves are shared."""
        part = object.__new__(StoredList)
        part.__dict__.update(self.__dict__)
        chosen = np.asarray(indices, dtype=np.int64)
        part._rows = chosen if self._rows is None else self._rows[chosen]
        return part


def folder_and_name(file: str) -> tuple[str, str]:
    """A path as its folder, with the separator, and its name: together they are the path again."""
    name = os.path.basename(file)
    return file[: len(file) - len(name)], name
