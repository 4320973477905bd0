"""Keyed randomness: numbers and orders that are a function of a key, such as (seed, epoch, index), on every device.

`rng_of` makes a generator for one key. `keys_of` and `random_ints` give the numbers of a whole batch at once, and
`permuted` the places of a random order one by one, all by SplitMix64 (Steele, Lea and Flood, 2014) in int64 arithmetic,
which wraps alike on every device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _signed(number: int) -> int:
    """The int64 with the bits of a number modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


STEP = _signed(0x9E3779B97F4A7C15)  # of SplitMix64's counter
FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)  # of its finaliser
ROUNDS = 12  # of the Feistel network


def rng_of(*key: int) -> torch.Generator:
    """A generator that belongs to a tuple of numbers, such as (seed, epoch, index), each below 2^32."""
    entropy = (len(key), *key)  # NumPy pads with zeros: without the length, (0,) and (0, 0) would be one key
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1)


def keys_of(seed: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """One key for each image of a batch: 64 random bits as int64 `(B,)`, from epochs and indices int64 `(B,)`."""
    state = _mixed(torch.full_like(epochs, seed) + STEP)
    for part in (epochs, indices):
        state = _mixed((state ^ part) + STEP)
    return state


def random_ints(keys: Tensor, stream: int, count: int) -> Tensor:
    """One whole number of 0 to `count - 1` for each key, int64 in the keys' shape and on their device.

    Args:
        keys: int64, of `keys_of`.
        stream: which of a key's numbers; those of different streams are independent.
        count: of values, at most 2^31; each is equally likely to within one part in 2^32 / count.
    """
    bits = _shifted(_mixed(keys + _signed((stream + 1) * STEP)), 32)
    return (bits * count) >> 32


def permuted(index: NDArray[np.int64], count: int, key: Sequence[int]) -> NDArray[np.int64]:
    """Where a random permutation of `0 .. count - 1` sends each index, computed without a list of the permutation.

    An alternating Feistel network on the next power of two; an index that it sends outside of `count` goes through
    again until it lands inside (cycle walking), fewer than two passes on average.

    Args:
        index: int64 `(N,)`, each in `0 .. count - 1`, else a ValueError.
        count: number of things that are permuted.
        key: numbers of at least 0 that choose the permutation, such as (seed, epoch).
    """
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"an index lies outside of 0 .. {count - 1}")
    place = torch.from_numpy(index.astype(np.int64))
    if count > 1:
        words = np.random.SeedSequence(tuple(key)).generate_state(ROUNDS, np.uint64).view(np.int64).tolist()
        bits = max(2, (count - 1).bit_length())
        place = _feistel(place, bits, words)
        while len(outside := (place >= count).nonzero().flatten()):
            place[outside] = _feistel(place[outside], bits, words)
    return place.numpy()


def _feistel(place: Tensor, bits: int, words: Sequence[int]) -> Tensor:
    """One pass over numbers of so many bits: each round adds (xor) a hash of one half of the bits to the other."""
    low_bits = bits // 2
    low, high = place & ((1 << low_bits) - 1), place >> low_bits
    for number, word in enumerate(words):
        if number % 2:
            low = low ^ _shifted(_mixed(high ^ word), 64 - low_bits)
        else:
            high = high ^ _shifted(_mixed(low ^ word), 64 - (bits - low_bits))
    return (high << low_bits) | low


def _mixed(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of `value`, int64."""
    value = (value ^ _shifted(value, 30)) * FACTORS[0]
    value = (value ^ _shifted(value, 27)) * FACTORS[1]
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shifted to the right, zeros coming in; `>>` of int64 would repeat the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
