"""What is dropped and why: pure functions of distances."""

from array import array

import numpy as np
from numpy.typing import NDArray

from igpt.curation.blocks import Array
from igpt.curation.options import KEEP, CurationOptions

PAIRS = np.dtype([("one", "<i4"), ("other", "<i4"), ("difference", "<f4")])  # 12 bytes: a million images have millions
AT_ONCE = 65_536  # pairs that are gone through together


def first_of_each(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each image `(N,)` the first that is equal to it, by their digests."""
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first[which], dtype=np.int64)


def duplicates(pairs: Array, out: NDArray[np.bool_]) -> Array:
    """The pairs by which images go that repeat an earlier one which stays, one pair an image, `one` being that image.

    Images are gone through in order, so that each dropped one has a partner that stays, and resemblance is not passed
    on along a chain. Of several partners it is the nearest, or the earliest of these. Pairs are sorted as arrays and
    gone through in parts: as Python's numbers, those of a million images would take gigabytes.

    Args:
        pairs: of images that are one picture, `PAIRS` `(P,)`, in any order and direction.
        out: those that are dropped for other reasons, and stand for none, `(N,)`.
    """
    later, earlier = np.maximum(pairs["one"], pairs["other"]), np.minimum(pairs["one"], pairs["other"])
    order = np.lexsort((earlier, pairs["difference"], later))
    gone, chosen = bytearray(out.tobytes()), array("q")
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        for row, image, partner in zip(rows.tolist(), later[rows].tolist(), earlier[rows].tolist(), strict=True):
            if not gone[image] and not gone[partner]:
                gone[image] = 1
                chosen.append(row)
    rows = np.array(chosen, dtype=np.int64)
    dropped = pairs[rows]
    dropped["one"], dropped["other"] = later[rows], earlier[rows]
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
