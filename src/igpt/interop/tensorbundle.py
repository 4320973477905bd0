"""Reading TensorFlow checkpoints without TensorFlow: the index and the shards of a "tensor bundle".

`PREFIX.index` is a sorted table (`leveltable.py`): under the empty name a header, under every other name the type, the
shape and the place of a tensor, as protobufs. `PREFIX.data-0000I-of-0000N` are the bytes of the tensors. Nothing in
these files is executed, and TensorFlow itself would be 2 GB more to install.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igpt.interop.crc32c import masked_crc32c
from igpt.interop.leveltable import AGAIN, fields, integer, messages, read_table
from igpt.system import UserError

FLOAT, HALF, BFLOAT16 = 1, 19, 14  # TensorFlow's numbers for the types
FILE_OF_BUNDLE = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})")


@dataclass(frozen=True)
class Entry:
    """What the index says of one tensor; offset and size in bytes."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


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
        UserError: index or shards are missing, damaged or cut short, or of another byte order.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix, self.index = prefix, _beside(prefix, "index")
        table = read_table(self.index)
        try:
            header = fields(table.pop(b"", b""))  # BundleHeaderProto
            self.n_shards, big_endian = integer(header, 1), integer(header, 2)
            if not self.n_shards:
                raise ValueError("it says that there are 0 shards")
            if big_endian:
                raise ValueError("it was written by a big-endian machine")
            self.entries = {_text(key): _entry(message) for key, message in table.items()}
        except ValueError as error:
            raise UserError(f"{self.index} cannot be read: {error}; {AGAIN}") from error
        for name, entry in self.entries.items():
            path, end = self._shard(entry), entry.offset + entry.size
            if not path.is_file():
                raise UserError(f"{path} is not there, and the tensor {name} lies in it; fetch it too")
            if end > path.stat().st_size:
                size = path.stat().st_size
                raise UserError(f"{path} is cut short: the tensor {name} ends at byte {end} of {size}; {AGAIN}")

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The tensor in float32, in memory of its own; its checksum is verified first.

        Raises:
            UserError: the bytes are not those that were written, or are no floating-point numbers.
        """
        entry = self.entries[name]
        path = self._shard(entry)
        if entry.dtype not in (FLOAT, HALF, BFLOAT16):
            raise UserError(f"{self.index}: the tensor {name} has TensorFlow's type {entry.dtype}; save it as float32")
        try:
            raw = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
            if masked_crc32c(raw) != entry.crc:
                raise UserError(f"{path}: the checksum of the tensor {name} is wrong: the file is damaged; {AGAIN}")
            return _float32(raw, entry.dtype).reshape(entry.shape)
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: the tensor {name} cannot be read: {error}; {AGAIN}") from error

    def _shard(self, entry: Entry) -> Path:
        return _beside(self.prefix, f"data-{entry.shard:05d}-of-{self.n_shards:05d}")


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{ending}")


def _text(key: bytes) -> str:
    """A name in one printable line."""
    text = key.decode(errors="backslashreplace")
    return text if text.isprintable() else ascii(text)


def _entry(message: bytes) -> Entry:
    """The protobuf of one tensor (BundleEntryProto)."""
    found = fields(message)
    dims = [dim for shape in messages(found, 2) for dim in messages(fields(shape), 2)]
    dtype, shard, offset, size, crc = (integer(found, number) for number in (1, 3, 4, 5, 6))
    return Entry(dtype, tuple(integer(fields(dim), 1) for dim in dims), shard, offset, size, crc)


def _float32(raw: NDArray[np.uint8], dtype: int) -> NDArray[np.float32]:
    """Bytes of one of the three floating-point types as float32; without a copy where they are."""
    if dtype == BFLOAT16:  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f4" if dtype == FLOAT else "<f2").astype(np.float32, copy=False)
