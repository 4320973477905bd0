"""The order of any number of images without a list of them: a permutation that is computed place by place.

An alternating Feistel network: the bits of an index are cut into two halves, and each round adds (xor) a keyed hash of
one half to the other, which can be undone and hence is a bijection. Its domain is the next power of two; an index that
lands outside of `count` is sent through again until it lands inside (cycle walking), fewer than two passes on average.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 12


def permuted(index: NDArray[np.int64], count: int, key: Sequence[int]) -> NDArray[np.int64]:
    """Where a random permutation of `0 .. count - 1` sends each index; no memory and no preparation, whatever `count`.

    Args:
        index: int64 `(N,)`, each in `0 .. count - 1`.
        count: number of things that are permuted.
        key: numbers of at least 0 that choose the permutation, such as (seed, epoch).

    Raises:
        ValueError: an index is outside of `0 .. count - 1`.
    """
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"an index lies outside of 0 .. {count - 1}")
    if count < 2:
        return index.astype(np.int64)
    keys = np.random.SeedSequence(tuple(key)).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    bits = max(2, (count - 1).bit_length())
    place = _scrambled(index.astype(np.uint64), bits, keys)
    while (outside := np.flatnonzero(place >= count)).size:
        place[outside] = _scrambled(place[outside], bits, keys)
    return place.astype(np.int64)


def _scrambled(place: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass of the network over numbers of so many bits."""
    low_bits = bits // 2
    low = place & np.uint64((1 << low_bits) - 1)
    high = place >> np.uint64(low_bits)
    for number, key in enumerate(keys):
        if number % 2:
            low ^= _hashed(high ^ key) >> np.uint64(64 - low_bits)
        else:
            high ^= _hashed(low ^ key) >> np.uint64(64 - (bits - low_bits))
    return (high << np.uint64(low_bits)) | low


def _hashed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
