"""From images, a reference and test images to what is kept, and why the rest is not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igpt.curation.blocks import Array, Blocks
from igpt.curation.choosing import PAIRS, duplicates, far, first_of_each
from igpt.curation.comparing import ROUNDS, nearest, same_pictures, usable
from igpt.curation.embedding import Embedding
from igpt.curation.options import CurationOptions
from igpt.curation.tasks import Engine

KEPT, UNREADABLE, OVERLAP, DUPLICATE, FAR = range(5)
STATES = ("kept", "unreadable", "overlap", "duplicate", "far")


@dataclass(frozen=True)
class Curation:
    """What became of each image, `(N,)` each."""

    state: NDArray[np.int8]  # one of `STATES`
    partner: NDArray[np.int64]  # of a duplicate the earlier image, of an overlap the test image; else -1
    difference: NDArray[np.float32]  # to it; else no number
    reference: NDArray[np.int64]  # the nearest image of the reference; -1 without one
    distance: NDArray[np.float32]  # to it; no number without one

    @classmethod
    def of(cls, count: int) -> "Curation":
        """All of so many images kept, none compared with anything yet."""
        none, unknown = np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
        return cls(np.zeros(count, np.int8), none, unknown, none.copy(), unknown.copy())

    def mark(self, state: int, pairs: Array) -> None:
        """Note why the images `one` of these pairs are dropped, each in one pair."""
        images = pairs["one"]
        self.state[images], self.partner[images], self.difference[images] = state, pairs["other"], pairs["difference"]

    def counts(self) -> dict[str, int]:
        """How many images are in each state."""
        return {name: int((self.state == number).sum()) for number, name in enumerate(STATES)}


def curate_images(
    images: Embedding,
    reference: Embedding | None,
    tests: Embedding | None,
    options: CurationOptions,
    blocks: Blocks,
    run: Engine,
) -> Curation:
    """Decide about each image: first what overlaps a test image goes, then what repeats an earlier one, then the far.

    Args:
        reference: what is to be near; None keeps what is far.
        tests: what must not be in the images; None looks for none.
        run: does the blocks that are not there.
    """
    found = Curation.of(len(images))
    found.state[list(images.reasons)] = UNREADABLE
    if tests is not None:
        drop_overlap(images, tests, found, options, blocks, run)
    drop_duplicates(images, found, options, blocks, run)
    if reference is not None:
        near = nearest(images, reference, blocks, run)
        found.reference[:], found.distance[:] = near["reference"], near["distance"]
        found.state[far(found.distance, found.state != KEPT, options)] = FAR
    return found


def drop_overlap(
    images: Embedding, tests: Embedding, found: Curation, options: CurationOptions, blocks: Blocks, run: Engine
) -> None:
    """Mark what is a picture of the test images, with the most similar of these."""
    rows = np.flatnonzero(found.state == KEPT)
    pairs = same_pictures(images, rows, tests, usable(tests), "overlap", options, blocks, run)
    pairs = pairs[np.lexsort((pairs["difference"], pairs["one"]))]
    _, first = np.unique(pairs["one"], return_index=True)
    found.mark(OVERLAP, pairs[first])


def drop_duplicates(images: Embedding, found: Curation, options: CurationOptions, blocks: Blocks, run: Engine) -> None:
    """Mark what repeats an earlier image: equal thumbnails first, then near ones, among what is left of each round."""
    rows = np.flatnonzero(found.state == KEPT)
    equal = np.zeros(len(rows), PAIRS)
    equal["one"], equal["other"] = rows, rows[first_of_each(images.digests()[rows])]
    found.mark(DUPLICATE, equal[equal["one"] != equal["other"]])
    some = np.flatnonzero(found.state == KEPT)
    for turn in range(ROUNDS):
        left = np.flatnonzero(found.state == KEPT)
        pairs = same_pictures(images, some, images, left, f"pairs{turn}", options, blocks, run)
        found.mark(DUPLICATE, duplicates(pairs, found.state != KEPT))
        some = crowded(pairs, found, options)
        if not len(some):
            return


def crowded(pairs: Array, found: Curation, options: CurationOptions) -> NDArray[np.int64]:
    """Numbers of the kept images whose candidates were all the same picture, so that there may be more of it."""
    same = np.bincount(pairs["one"], minlength=len(found.state))
    return np.flatnonzero((found.state == KEPT) & (same >= options.candidates))
