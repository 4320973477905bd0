"""Reading TensorFlow checkpoints without TensorFlow: the index and the shards of a "tensor bundle".

`PREFIX.index` is a sorted table (`leveltable.py`): under the empty name a header, under every other name the type, the
shape and the place of a tensor, as protobufs. `PREFIX.data-0000I-of-0000N` are the bytes of the tensors. Nothing in
these files is executed. TensorFlow itself would be 2 GB more to install, and it ends the process on some of the files
that are refused here in one line.
"""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igpt.interop.crc32c import masked_crc32c
from igpt.interop.leveltable import DamagedError, UnsupportedError, fields, integer, messages, read_table
from igpt.system import UserError

FLOAT, HALF, BFLOAT16 = 1, 19, 14
# Bytes of a number by TensorFlow's number for the type; the bare ones are float64, int32 and int64.
ITEM_BYTES = {FLOAT: 4, 2: 8, 3: 4, 9: 8, BFLOAT16: 2, HALF: 2}
MAX_RANK = 254
FILE_OF_BUNDLE = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})")
AGAIN = "fetch the checkpoint again"


@dataclass(frozen=True)
class Entry:
    """What the index says of one tensor; sizes in bytes, `sliced` where it is stored in pieces under other names."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool


def bundle_prefix(path: Path) -> Path | None:
    """Prefix of the checkpoint that `path` is the prefix or a file of; None where there is no such checkpoint."""
    names = [path.name] if path.name else []
    if match := FILE_OF_BUNDLE.fullmatch(path.name):
        names.append(match[1])
    with suppress(OSError):  # such as a name too long for a file
        for prefix in map(path.with_name, names):
            if _beside(prefix, "index").is_file():
                return prefix
    return None


class TensorBundle:
    """A TensorFlow checkpoint, opened: the index is read and checked at once, tensors one by one when asked for.

    Args:
        prefix: path of the checkpoint's files up to `.index` and `.data-...`.

    Raises:
        UserError: index or shards are missing, damaged or cut short, or of another byte order or version.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix, self.index = prefix, _beside(prefix, "index")
        table = read_table(self.index)
        try:
            self.n_shards = _shards(table.pop(b"", b""))
        except DamagedError as error:
            raise UserError(f"{self.index} cannot be read: {error}; {error.advice}") from error
        self.entries = {(name := _text(key)): self._entry(name, message) for key, message in table.items()}
        self._check_places()

    def check_type(self, name: str) -> None:
        """Raise a UserError unless the tensor holds floating-point numbers, stored in one piece."""
        entry = self.entries[name]
        if entry.sliced:
            raise UserError(f"{self.index}: the tensor {name} is stored in slices; save it in one piece")
        if entry.dtype not in (FLOAT, HALF, BFLOAT16):
            raise UserError(f"{self.index}: the tensor {name} has TensorFlow's type {entry.dtype}; save it as float32")

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The tensor in float32, mapped from its file where it is stored so; its checksum is verified first.

        Raises:
            UserError: the bytes are not those that were written, or `check_type` refuses it.
        """
        self.check_type(name)
        entry = self.entries[name]
        path = self._shard(entry.shard)
        raw = np.empty(0, np.uint8)
        try:
            if entry.size:
                raw = np.asarray(np.memmap(path, np.uint8, "c", entry.offset, (entry.size,)))  # writing stays here
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: the tensor {name} cannot be read: {error}; {AGAIN}") from error
        if masked_crc32c(raw) != entry.crc:
            raise UserError(f"{path}: the checksum of the tensor {name} is wrong: the file is damaged; {AGAIN}")
        return _float32(raw, entry.dtype).reshape(entry.shape)

    def _entry(self, name: str, message: bytes) -> Entry:
        """One protobuf of the index."""
        try:
            entry = _parsed(message)
            if not 0 <= entry.shard < self.n_shards:
                raise DamagedError(f"shard {entry.shard} of {self.n_shards} does not exist")
            if entry.dtype in ITEM_BYTES and not entry.sliced:
                needed = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
                if entry.size != needed:
                    raise DamagedError(f"its {entry.size} bytes do not make the shape {entry.shape}")
            return entry
        except DamagedError as error:
            raise UserError(f"{self.index}: the tensor {name} cannot be read: {error}; {error.advice}") from error

    def _check_places(self) -> None:
        """Every tensor must lie in its shard, and none in another: so no more is read than there is on disk."""
        placed = sorted((e.shard, e.offset, e.size, name) for name, e in self.entries.items() if e.size)
        sizes = {shard: self._size(shard, name) for shard, _, _, name in placed}
        ends = dict.fromkeys(sizes, 0)
        for shard, offset, size, name in placed:
            if offset < ends[shard]:
                raise UserError(f"{self.index}: the tensor {name} overlaps with another one; {AGAIN}")
            ends[shard] = offset + size
            if ends[shard] > sizes[shard]:
                path = self._shard(shard)
                raise UserError(
                    f"{path} is cut short: the tensor {name} ends at byte {ends[shard]} of {sizes[shard]}; {AGAIN}"
                )

    def _shard(self, shard: int) -> Path:
        return _beside(self.prefix, f"data-{shard:05d}-of-{self.n_shards:05d}")

    def _size(self, shard: int, name: str) -> int:
        """Bytes of a shard."""
        path = self._shard(shard)
        if not path.is_file():
            raise UserError(f"{path} is not there, and the tensor {name} lies in it; fetch it too")
        return path.stat().st_size


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{ending}")


def _text(key: bytes) -> str:
    """A name in one printable line."""
    text = key.decode(errors="backslashreplace")
    return text if text.isprintable() else ascii(text)


def _shards(header: bytes) -> int:
    """Number of shards that the header (BundleHeaderProto) gives."""
    found = fields(header)
    shards, byte_order = integer(found, 1), integer(found, 2)
    if not 1 <= shards < 10**5:
        raise DamagedError(f"it says that there are {shards} shards")
    if byte_order:
        raise UnsupportedError("it was written by a big-endian machine")
    if any(integer(fields(version), 2) > 1 for version in messages(found, 3)):
        raise UnsupportedError("it needs a later version of the format")
    return shards


def _parsed(message: bytes) -> Entry:
    """The protobuf of one tensor (BundleEntryProto), whose numbers may still be any that are not negative."""
    found = fields(message)
    shape: list[int] = []
    for part in messages(found, 2):
        shape += [integer(fields(dim), 1) for dim in messages(fields(part), 2)]
    entry = Entry(
        dtype=integer(found, 1),
        shape=tuple(shape),
        shard=integer(found, 3),
        offset=integer(found, 4),
        size=integer(found, 5),
        crc=integer(found, 6),
        sliced=bool(messages(found, 7)),
    )
    if len(shape) > MAX_RANK or min((entry.offset, entry.size, *shape)) < 0:
        raise DamagedError("its place or shape is not possible")
    return entry


def _float32(raw: NDArray[np.uint8], dtype: int) -> NDArray[np.float32]:
    """Bytes of one of the three floating-point types as float32; without a copy where they are and can be."""
    if dtype == BFLOAT16:  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    stored = raw.view("<f4" if dtype == FLOAT else "<f2")
    return np.require(stored.astype(np.float32, copy=False), requirements="A")  # aligned: torch takes it for granted
