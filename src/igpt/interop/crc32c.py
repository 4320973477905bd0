"""CRC-32C (Castagnoli, RFC 3720), the checksum of TensorFlow's checkpoints, at gigabytes a second in NumPy.

A CRC is linear: with the message cut into rows of equal length, one row is moved on by "that many zero bytes" and added
(exclusive or) to the next, until a single row of the same CRC is left. Moving on is two look-ups a word.
"""

from functools import cache, reduce
from operator import xor

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78  # bits reversed: the lowest bit is the highest power
ALL_ONES = 0xFFFFFFFF
LANES = (2**16, 2**12, 2**8)  # words a row, from long messages to short ones: each a power of two
MASK = 0xA282EAD8  # what LevelDB adds, so that a checksum of checksums is no weak one


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """Checksum of the bytes; memory does not grow with their number."""
    raw = np.frombuffer(data, np.uint8)
    register = ALL_ONES
    for lanes in LANES:
        end = len(raw) // (4 * lanes) * 4 * lanes
        if end > 4 * lanes:
            row = _fold(raw[:end].view("<u4").reshape(-1, lanes), register)
            raw, register = np.concatenate([row.view(np.uint8), raw[end:]]), 0
    table = _table(8, 8)
    for byte in raw.tolist():
        register = int(table[(register ^ byte) & 0xFF]) ^ (register >> 8)
    return register ^ ALL_ONES


def masked_crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The checksum as TensorFlow and LevelDB store it: turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK) & ALL_ONES


def _fold(rows: NDArray[np.uint32], register: int) -> NDArray[np.uint32]:
    """Words `(R, W)` to one row `(W,)` with the same checksum; the register goes into the first word."""
    steps = 32 * rows.shape[1]
    low, high = _table(steps, 16), _table(steps, 16, first=16)
    row: NDArray[np.uint32] = rows[0].copy()
    row[0] ^= np.uint32(register)
    for following in rows[1:]:
        row = low[row & 0xFFFF] ^ high[row >> 16] ^ following
    return row


@cache
def _table(steps: int, bits: int, first: int = 0) -> NDArray[np.uint32]:
    """The register after `steps` zero bits (a power of two), for every value of `bits` bits from bit `first` on."""
    images = [POLYNOMIAL] + [1 << bit for bit in range(31)]  # of each single bit, after one step
    for _ in range(steps.bit_length() - 1):  # twice as many steps each time
        images = [reduce(xor, (images[bit] for bit in range(32) if image >> bit & 1), 0) for image in images]
    table = np.zeros(1, np.uint32)
    for image in images[first : first + bits]:
        table = np.concatenate([table, table ^ np.uint32(image)])
    return table
