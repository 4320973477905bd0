"""Reading LevelDB's sorted table, the format of a TensorFlow checkpoint's index, and the protobufs in it.

A table is a file of blocks and a footer. A block holds keys, of which each names only what differs from the one before,
with their values; behind it stand a byte for its compression and a checksum. The footer points at the block that
points at the others.
"""

from collections.abc import Iterator
from pathlib import Path

from igpt.interop.crc32c import masked_crc32c
from igpt.system import UserError

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two block handles, padding, the magic number
TRAILER = 5  # bytes behind a block: its compression and its checksum
AGAIN = "fetch the checkpoint again, or save it anew with TensorFlow"


class Cursor:
    """Reads bytes from front to back; every method raises a ValueError when they are at an end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        left = len(self.data) - self.at
        if size > left:
            raise ValueError(f"{size} bytes are announced where {left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        """Unsigned 64-bit number of up to ten bytes, seven bits each."""
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        raise ValueError("a number is longer than ten bytes")


def read_table(path: Path) -> dict[bytes, bytes]:
    """Every key of the table and its value, in order.

    Raises:
        UserError: the file is no such table, is damaged, cut short or compressed.
    """
    try:
        file = path.read_bytes()
        if int.from_bytes(file[-8:], "little") != MAGIC:
            raise ValueError("the footer of a checkpoint's index is not at its end")
        footer = Cursor(file[-FOOTER:])
        footer.varint(), footer.varint()  # of a block of statistics that nobody writes
        handles = [handle for _, handle in _entries(_block(file, footer))]
        return {key: value for handle in handles for key, value in _entries(_block(file, Cursor(handle)))}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}; {AGAIN}") from error


def _block(file: bytes, handle: Cursor) -> bytes:
    """Content of the block that the handle points at, checksum verified."""
    offset, size = handle.varint(), handle.varint()
    checked, trailer = file[offset : offset + size + 1], file[offset + size + 1 : offset + size + TRAILER]
    if masked_crc32c(checked) != int.from_bytes(trailer, "little"):
        raise ValueError("the checksum of a block is wrong")
    if checked[-1]:
        raise ValueError("a block is compressed")
    return checked[:-1]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; behind them stand the places where keys are written out, and how many."""
    places = 4 * int.from_bytes(block[-4:], "little") + 4
    cursor, key = Cursor(block[:-places]), b""
    while cursor.at < len(cursor.data):
        shared, own, size = cursor.varint(), cursor.varint(), cursor.varint()
        key = key[:shared] + cursor.take(own)
        yield key, cursor.take(size)


def fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Values of a protobuf message by field number, in order; numbers are unsigned, messages and texts are bytes.

    Raises:
        ValueError: it is no protobuf.
    """
    cursor, found = Cursor(message), dict[int, list[int | bytes]]()
    while cursor.at < len(cursor.data):
        number, wire = divmod(cursor.varint(), 8)
        if wire == 0:
            value: int | bytes = cursor.varint()
        elif wire == 2:
            value = cursor.take(cursor.varint())
        elif wire == 5:
            value = int.from_bytes(cursor.take(4), "little")
        else:
            raise ValueError(f"a field has the unknown kind {wire}")
        found.setdefault(number, []).append(value)
    return found


def integer(message: dict[int, list[int | bytes]], number: int) -> int:
    """Number of a field, 0 where it is left out; the last one counts."""
    value = message.get(number, [0])[-1]
    if isinstance(value, bytes):
        raise ValueError(f"field {number} should be a number")
    return value


def messages(message: dict[int, list[int | bytes]], number: int) -> list[bytes]:
    """Every message under a field."""
    return [value for value in message.get(number, []) if isinstance(value, bytes)]
