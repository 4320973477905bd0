"""Reading LevelDB's sorted table, the format of a TensorFlow checkpoint's index, and the protobufs in it.

A table is a file of blocks and a footer. A block holds keys, of which each names only what differs from the one before,
with their values; behind it stand a byte for its compression and a checksum. The footer points at the block that
points at the others. Everything here is checked against the bytes that are there before it is used.
"""

from collections.abc import Iterator
from pathlib import Path

from igpt.interop.crc32c import masked_crc32c
from igpt.system import UserError

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two block handles, padding, the magic number
TRAILER = 5  # bytes behind a block: its compression and its checksum
LARGEST = 2**24  # bytes of a table, and of its keys when written out; that of iGPT-L with Adam's slots has some 10^5
LONGEST = 1000  # bytes of a key


class DamagedError(ValueError):
    """The bytes do not follow the format; says in which way."""

    advice = "it is damaged or cut short: fetch the checkpoint again"


class UnsupportedError(DamagedError):
    """The bytes may be right, but are of a kind that TensorFlow does not write for such checkpoints."""

    advice = "save it anew with TensorFlow's own Saver, uncompressed and on a little-endian machine"


class Cursor:
    """Reads bytes from front to back; what is asked for must be there.

    Raises:
        DamagedError: by every method, when it is not.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """Number of bytes not yet read."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise DamagedError(f"{size} bytes are announced where {self.left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """Unsigned number of a fixed width in bytes."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """Unsigned 64-bit number of up to ten bytes, seven bits each."""
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        raise DamagedError("a number is longer than ten bytes")


def read_table(path: Path) -> dict[bytes, bytes]:
    """Every key of the table and its value, in order.

    Raises:
        UserError: the file is no such table, is damaged, cut short or compressed.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than the index of a checkpoint can be; give the prefix of a checkpoint")
        file = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; give a readable file") from error
    try:
        return dict(_sorted_entries(file))
    except DamagedError as error:
        raise UserError(f"{path} cannot be read: {error}; {error.advice}") from error


def _sorted_entries(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of all blocks; keys must rise, so no block is used twice."""
    if len(file) < FOOTER or int.from_bytes(file[-8:], "little") != MAGIC:
        raise DamagedError("the footer of a checkpoint's index is not at its end")
    footer = Cursor(file[-FOOTER:])
    footer.varint(), footer.varint()  # of a block of statistics that nobody writes
    last, total = None, 0
    for _, handle in _entries(_block(file, footer)):
        for key, value in _entries(_block(file, Cursor(handle))):
            total += len(key)
            if total > LARGEST:
                raise DamagedError("its names are too long")
            if last is not None and key <= last:
                raise DamagedError("its names are not in order")
            last = key
            yield key, value


def _block(file: bytes, handle: Cursor) -> bytes:
    """Content of the block that the handle points at, checksum verified."""
    offset, size = handle.varint(), handle.varint()
    if offset + size + TRAILER > len(file):
        raise DamagedError("a block lies outside of it")
    checked, trailer = file[offset : offset + size + 1], file[offset + size + 1 : offset + size + TRAILER]
    if masked_crc32c(checked) != int.from_bytes(trailer, "little"):
        raise DamagedError("the checksum of a block is wrong")
    if checked[-1]:
        raise UnsupportedError("a block is compressed")
    return checked[:-1]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; behind them stand the places where keys are written out, and how many."""
    places = 4 * int.from_bytes(block[-4:], "little") + 4
    if len(block) < places:
        raise DamagedError("a block is shorter than it says")
    cursor, key = Cursor(block[: len(block) - places]), b""
    while cursor.left:
        shared, own, size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise DamagedError("a name continues one that is not there")
        key = key[:shared] + cursor.take(own)
        if len(key) > LONGEST:
            raise DamagedError(f"a name has {len(key)} bytes")
        yield key, cursor.take(size)


def fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Values of a protobuf message by field number, in order; numbers are unsigned, messages and texts are bytes.

    Raises:
        DamagedError: it is no protobuf.
    """
    cursor, found = Cursor(message), dict[int, list[int | bytes]]()
    while cursor.left:
        number, wire = divmod(cursor.varint(), 8)
        if wire == 0:
            value: int | bytes = cursor.varint()
        elif wire == 2:
            value = cursor.take(cursor.varint())
        elif wire in (1, 5):
            value = cursor.number(8 if wire == 1 else 4)
        else:
            raise DamagedError(f"a field has the unknown kind {wire}")
        found.setdefault(number, []).append(value)
    return found


def integer(message: dict[int, list[int | bytes]], number: int) -> int:
    """Signed 64-bit value of a field, 0 where it is left out; the last one counts."""
    value = message.get(number, [0])[-1]
    if isinstance(value, bytes):
        raise DamagedError(f"field {number} should be a number")
    return value - 2**64 if value >= 2**63 else value


def messages(message: dict[int, list[int | bytes]], number: int) -> list[bytes]:
    """Every message under a field."""
    values = message.get(number, [])
    if not all(isinstance(value, bytes) for value in values):
        raise DamagedError(f"field {number} should be a message")
    return [value for value in values if isinstance(value, bytes)]
