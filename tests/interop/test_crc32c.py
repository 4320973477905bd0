"""The checksum of TensorFlow's checkpoints, against published values and against one bit at a time."""

import numpy as np
import pytest

from igpt.interop.crc32c import LANES, crc32c, masked_crc32c
from tests.interop.bundles import masked_crc


@pytest.mark.parametrize(
    ("message", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_published_messages_have_their_published_checksum(message, checksum):
    assert crc32c(message) == checksum


@pytest.mark.parametrize("row", [4 * lanes for lanes in LANES if lanes < 2**16])
def test_messages_around_whole_rows_have_the_checksum_of_one_byte_at_a_time(row):
    message = np.random.default_rng(row).integers(0, 256, 3 * row, dtype=np.uint8)
    for length in [row - 1, row, row + 1, 2 * row - 1, 2 * row, 2 * row + 1, 3 * row]:
        for start in (0, 1):
            piece = message[start:length]
            assert masked_crc32c(piece) == masked_crc(piece.tobytes()), (length, start)


def test_long_messages_are_checked_to_the_last_bit():
    message = np.random.default_rng(0).integers(0, 256, 3 * 4 * LANES[0] + 4097, dtype=np.uint8)
    assert masked_crc32c(message) == masked_crc(message.tobytes())
    seen = {crc32c(message)}
    for place in (0, 4 * LANES[0] - 1, 4 * LANES[0], len(message) - 1):
        for bit in (1, 128):
            message[place] ^= bit
            seen.add(crc32c(message))
            message[place] ^= bit
    assert len(seen) == 9
