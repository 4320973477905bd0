"""The slow half of curation, block by block: nearest reference, overlap with test images, pairs of one picture."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.curation.blocks import Array, Blocks, let_go, load
from igpt.curation.choosing import PAIRS
from igpt.curation.embedding import Embedding
from igpt.curation.neighbours import Neighbours, Vectors, index_of
from igpt.curation.options import CurationOptions
from igpt.curation.pictures import differences, reach
from igpt.curation.tasks import Engine, Ints, checksum_of_rows, done, tasks_of

NEAREST = np.dtype([("reference", "<i8"), ("distance", "<f4")])
AGAIN = 8  # candidates whose exact distances decide which image of the reference is nearest
AT_ONCE = 16_384  # pairs whose thumbnails are read together; 25 MB
METHOD = 4  # of telling pictures apart: blocks of another one are made again
ROUNDS = 4  # of looking among what is left, where all candidates of an image were the same picture


@dataclass(frozen=True)
class Place:
    """An index on disk, which each process opens once."""

    file: str
    checksum: str

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Neighbours`."""
        return opened(self).search(queries, count)


@lru_cache(maxsize=1)
def opened(place: Place) -> Neighbours:
    """The index of a place; with the next one it is let go."""
    return Neighbours(load(Path(place.file)))


def indexed(name: str, vectors: Vectors, rows: Ints, known: list[str], blocks: Blocks) -> Place:
    """An index of some vectors, made unless it is there; it belongs to what is `known` of them."""
    key = [METHOD, *known, checksum_of_rows(rows)]
    _, _, checksum = blocks.get(f"{name}-index", key, lambda: (index_of(vectors, rows), None))
    return Place(str(blocks.folder / f"{name}-index.npy"), checksum)


@dataclass(frozen=True)
class Nearness:
    """Finds the nearest image of the reference by features at its mean and deviation, `(D,)` each.

    The distance is the root mean square over features, so that it does not grow with their number.
    """

    images: Embedding
    reference: Embedding
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    index: Place

    def found(self, rows: Ints) -> tuple[Array, None]:
        """`NEAREST` of some images."""
        queries = (self.images.features(rows) - self.mean) / self.scale
        _, candidates = self.index.search(queries, AGAIN)
        best = np.full(len(rows), np.inf, np.float32)
        which = np.full(len(rows), -1)
        for column in candidates.T:
            values = (self.reference.features(np.maximum(column, 0)) - self.mean) / self.scale
            distance = np.sqrt(np.square(queries - values).mean(1))
            better = (column >= 0) & (distance < best)
            best[better], which[better] = distance[better], column[better]
        made = np.empty(len(rows), NEAREST)
        made["reference"], made["distance"] = which, best
        return made, None


def nearest(images: Embedding, reference: Embedding, blocks: Blocks, run: Engine) -> Array:
    """Nearest image of the reference and distance to it, `NEAREST` `(N,)`."""

    def prepare() -> Any:
        mean, scale = moments(reference)

        def shifted(rows: Ints) -> NDArray[np.float32]:
            return (reference.features(rows) - mean) / scale

        place = indexed("nearest", shifted, usable(reference), [reference.digest], blocks)
        return Nearness(images, reference, mean, scale, place).found

    key = [METHOD, images.digest, reference.digest]
    tasks = tasks_of("nearest", np.arange(len(images)), images.block, lambda rows: [*key, checksum_of_rows(rows)])
    return np.concatenate([array for array, _, _ in done(tasks, prepare, blocks, run, "nearest")])


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


@dataclass(frozen=True)
class Comparison:
    """Compares images with those of others that are near; an image is not compared with itself."""

    images: Embedding
    others: Embedding
    index: Place
    options: CurationOptions

    @torch.no_grad()
    def found(self, rows: Ints) -> tuple[Array, None]:
        """Pairs of some images and others that are one picture, `PAIRS`."""
        itself = self.images is self.others
        apart, near = self.index.search(self.images.coarse(rows), self.options.candidates + itself)
        one, other = np.repeat(rows, near.shape[1]), near.ravel()
        within = apart <= reach(self.images.thumbs(rows)).numpy()[:, None]
        kept = within.ravel() & (other >= 0) & ~(itself & (one == other))
        one, other = one[kept], other[kept]
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(one), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            first, second = self.images.thumbs(one[some]), self.others.thumbs(other[some])
            parts.append(differences(first, second, self.options.threshold).numpy())
        pairs = np.empty(len(one), PAIRS)
        pairs["one"], pairs["other"], pairs["difference"] = one, other, np.concatenate(parts)
        return pairs[pairs["difference"] <= self.options.threshold], None


def same_pictures(
    images: Embedding,
    rows: Ints,
    others: Embedding,
    those: Ints,
    name: str,
    options: CurationOptions,
    blocks: Blocks,
    run: Engine,
) -> Array:
    """Pairs of images and others that are one picture.

    Args:
        rows: numbers of the images to look for, `(n,)`.
        those: of the others to look among, `(m,)`.
    """
    if not len(rows) or not len(those):
        return np.empty(0, PAIRS)

    def prepare() -> Any:
        place = indexed(name, others.coarse, those, [others.digest], blocks)
        return Comparison(images, others, place, options).found

    key = [METHOD, images.digest, others.digest, options.threshold, options.candidates, checksum_of_rows(those)]
    tasks = tasks_of(name, rows, images.block, lambda some: [*key, checksum_of_rows(some)])
    return np.concatenate([array for array, _, _ in done(tasks, prepare, blocks, run, name)])
