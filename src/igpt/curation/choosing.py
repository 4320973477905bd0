"""What is dropped and why: pure functions of distances."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from igpt.curation.options import KEEP, CurationOptions

Pair = tuple[int, int, float]  # the later image, the earlier one, and their difference


def first_of_each(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each image `(N,)` the first that is equal to it, by their digests."""
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first[which], dtype=np.int64)


def duplicates(pairs: Iterable[Pair], out: Sequence[bool] | NDArray[np.bool_]) -> dict[int, tuple[int, float]]:
    """Of each image that repeats an earlier one that is kept: which, and their difference.

    Images are gone through in order, so that each dropped one has a partner that stays, and resemblance is not passed
    on along a chain.

    Args:
        pairs: of images that are one picture.
        out: those that are dropped for other reasons, and stand for none, `(N,)`.
    """
    earlier: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for one, other, difference in pairs:
        earlier[max(one, other)].append((difference, min(one, other)))
    dropped: dict[int, tuple[int, float]] = {}
    for image in sorted(earlier):
        partners = [pair for pair in earlier[image] if pair[1] not in dropped and not out[pair[1]]]
        if partners and not out[image]:
            difference, partner = min(partners)
            dropped[image] = partner, difference
    return dropped


def far(distances: NDArray[np.float32], out: NDArray[np.bool_], options: CurationOptions) -> NDArray[np.bool_]:
    """Which images are too far from the reference `(N,)`.

    Args:
        distances: to the nearest image of the reference, `(N,)`.
        out: those that are dropped already: a share is one of the others.
    """
    if options.within is not None:
        return ~out & (distances > options.within)
    left = np.flatnonzero(~out)
    share = KEEP if options.keep is None else options.keep
    kept = max(1, round(share * len(left)))
    nearest = left[np.argsort(distances[left], kind="stable")[:kept]]
    beyond = ~out
    beyond[nearest] = False
    return beyond
