"""The slow half of curation, block by block: nearest reference, overlap with test images, pairs of one picture."""

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.curation.blocks import Array, Blocks, let_go, spans
from igpt.curation.choosing import PAIRS
from igpt.curation.embedding import Embedding, Ints
from igpt.curation.neighbours import Neighbours
from igpt.curation.options import CurationOptions
from igpt.curation.pictures import differences
from igpt.system import Progress

NEAREST = np.dtype([("reference", "<i8"), ("distance", "<f4")])
AGAIN = 8  # candidates whose exact distances decide which image of the reference is nearest
AT_ONCE = 16_384  # pairs whose thumbnails are read together; 25 MB
METHOD = 3  # of telling pictures apart: blocks of another one are made again
ROUNDS = 4  # of looking among what is left, where all candidates of an image were the same picture


def nearest(images: Embedding, reference: Embedding, blocks: Blocks) -> Array:
    """Nearest image of the reference and distance to it, `(N,)`, by features at its mean and deviation.

    The distance is the root mean square over features, so that it does not grow with their number.
    """
    mean, scale = moments(reference)

    def shifted(of: Embedding, rows: Ints) -> NDArray[np.float32]:
        return (of.features(rows) - mean) / scale

    index = cache(lambda: Neighbours(lambda rows: shifted(reference, rows), usable(reference)))

    def found(rows: Ints) -> Array:
        queries = shifted(images, rows)
        candidates = index().search(queries, AGAIN)
        best = np.full(len(rows), np.inf, np.float32)
        which = np.full(len(rows), -1)
        for column in candidates.T:
            distance = np.sqrt(np.square(queries - shifted(reference, np.maximum(column, 0))).mean(1))
            better = (column >= 0) & (distance < best)
            best[better], which[better] = distance[better], column[better]
        made = np.empty(len(rows), NEAREST)
        made["reference"], made["distance"] = which, best
        return made

    return in_blocks("nearest", np.arange(len(images)), [images.digest, reference.digest], images.block, blocks, found)


def usable(images: Embedding) -> Ints:
    """Numbers of the images that could be read."""
    return np.setdiff1d(np.arange(len(images)), list(images.reasons))


def moments(reference: Embedding) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each feature over the reference; one that hardly varies there counts little."""
    total = square = np.zeros(1)
    for part in reference.parts:
        values = part["feature"].astype(np.float64)
        let_go(part)
        total, square = total + values.sum(0), square + np.square(values).sum(0)
    mean = total / len(reference)
    deviation = np.sqrt(np.maximum(square / len(reference) - mean**2, 0))
    floor = 0.01 * deviation.max() or 1.0
    return mean.astype(np.float32), np.maximum(deviation, floor).astype(np.float32)


def same_pictures(
    images: Embedding, rows: Ints, others: Embedding, those: Ints, name: str, options: CurationOptions, blocks: Blocks
) -> Array:
    """Pairs of images and others that are one picture; an image is not compared with itself.

    Args:
        rows: numbers of the images to look for, `(n,)`.
        those: of the others to look among, `(m,)`.
    """
    if not len(rows) or not len(those):
        return np.empty(0, PAIRS)
    itself = images is others
    index = cache(lambda: Neighbours(others.coarse, those))  # only if a block is not there yet

    def found(some: Ints) -> Array:
        near = index().search(images.coarse(some), options.candidates + itself)
        one, other = np.repeat(some, near.shape[1]), near.ravel()
        kept = (other >= 0) & ~(itself & (one == other))
        one, other = one[kept], other[kept]
        parts = [
            differences(images.thumbs(one[some]), others.thumbs(other[some]), options.threshold).numpy()
            for some in (slice(at, at + AT_ONCE) for at in range(0, len(one), AT_ONCE))
        ]
        apart = np.concatenate(parts) if parts else np.empty(0, np.float32)
        pairs = np.empty(len(one), PAIRS)
        pairs["one"], pairs["other"], pairs["difference"] = one, other, apart
        return pairs[apart <= options.threshold]

    key = [METHOD, images.digest, others.digest, options.threshold, options.candidates, checksum_of_rows(those)]
    with torch.no_grad():
        return in_blocks(name, rows, key, images.block, blocks, found)


def in_blocks(
    name: str, rows: Ints, key: list[object], size: int, blocks: Blocks, found: Callable[[Ints], Array]
) -> Array:
    """What `found` gives for all rows, a block at a time."""
    parts, key = [], [*key, checksum_of_rows(rows)]
    with Progress(len(rows), f"images: {name}") as progress:
        for number, (start, end) in enumerate(spans(len(rows), size)):

            def make(some: Ints = rows[start:end]) -> tuple[Array, None]:
                return found(some), None

            parts.append(blocks.get(f"{name}-{number:05d}", key, make)[0])
            progress.add(end - start)
    return np.concatenate(parts)


def checksum_of_rows(rows: Ints) -> str:
    """Tells one choice of images from another."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
