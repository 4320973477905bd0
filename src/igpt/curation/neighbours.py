"""The nearest of many vectors by FAISS, exact for few of them, compressed for millions."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.palette import faiss_behind_torch

Floats = NDArray[np.float32]
FLAT = 100_000  # vectors up to which all are compared with all
PIECES, BITS = 32, 8  # bytes of a compressed vector
LISTS, PER_LIST, PROBED = 1024, 40, 8
Vectors = Callable[[NDArray[np.int64]], Floats]  # those of some numbers
AT_ONCE = 4096  # vectors that are read at a time
ROUNDS = 25  # of k-means, FAISS's own number
CODE = 5  # a compressed vector is compared in the time of so many whole ones of 192 numbers, on a CPU with AVX-512


class Neighbours:
    """An index of vectors `(N, D)`: exact up to `flat` of them.

    Beyond, each is 32 bytes (inverted lists and product quantisation, trained on at most 40,960 of them): 40 MB a
    million with their numbers, whatever their width.

    Args:
        stored: what `index_of` gives.
    """

    def __init__(self, stored: NDArray[np.uint8]) -> None:
        self.index = behind_torch().deserialize_index(np.ascontiguousarray(stored))

    def search(self, queries: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """The nearest vectors, `(Q, min(count, N))` each.

        Returns:
            What their squared distances are at least, 0 in a compressed index; and their numbers, -1 where the lists
            looked into held too few.
        """
        faiss = behind_torch()
        squared, found = self.index.search(padded(queries, self.index.d), min(count, self.index.ntotal))
        return squared * isinstance(self.index, faiss.IndexIDMap), found


def index_of(vectors: Vectors, rows: NDArray[np.int64], flat: int | None = None) -> NDArray[np.uint8]:
    """The index of some vectors, which are read a block at a time, as bytes.

    Args:
        vectors: gives those of some numbers `(n,)`, float `(n, D)`.
        rows: the numbers of those to find.
        flat: most vectors for the exact index; `FLAT` if left out.
    """
    faiss = behind_torch()
    index = empty(faiss, vectors, rows) if len(rows) > (FLAT if flat is None else flat) else None
    index = index or faiss.IndexIDMap(faiss.IndexFlatL2(vectors(rows[:1]).shape[1]))
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        index.add_with_ids(padded(vectors(some), index.d), some)
    stored: NDArray[np.uint8] = faiss.serialize_index(index)
    return stored


def empty(faiss: Any, vectors: Vectors, rows: NDArray[np.int64]) -> Any:
    """An index of compressed vectors, trained on some of these."""
    count, width = len(rows), vectors(rows[:1]).shape[1]
    width += -width % PIECES
    lists = min(LISTS, max(1, count // PER_LIST))
    chosen = np.linspace(0, count - 1, min(count, max(2**BITS, lists) * PER_LIST)).astype(np.int64)
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(width), width, lists, PIECES, BITS)
    index.nprobe = min(PROBED, lists)
    index.train(padded(vectors(rows[chosen]), width))
    return index


@dataclass(frozen=True)
class Effort:
    """What an index of so many vectors of some width takes: bytes, and time by a measured speed."""

    count: int
    width: int = 192

    def bytes(self) -> int:
        """Its size, on disk and in memory."""
        return self.count * (4 * self.width if self.count <= FLAT else PIECES + 8)

    def seconds(self, queries: int, speed: float) -> float:
        """The time of making it and of so many searches in it, at a `speed` of numbers compared a second."""
        search, making = float(self.count), 0.0
        if self.count > FLAT:
            search = LISTS + CODE * PROBED * self.count / LISTS
            centres = LISTS + 2**BITS
            making = centres * (ROUNDS * LISTS * PER_LIST + self.count)
        return (queries * search + making) * self.width / speed

    @classmethod
    def speed(cls) -> float:
        """Numbers that are compared in a second of a CPU core, timed on this machine."""
        vectors, rows = np.zeros((AT_ONCE, cls.width), np.float32), np.arange(AT_ONCE)
        index = Neighbours(index_of(lambda some: vectors[some], rows))
        taken = []
        for _ in range(3):
            began = time.process_time()
            index.search(vectors[:256], 16)
            taken.append(time.process_time() - began)
        return 256 * vectors.size / min(taken)


def padded(vectors: Floats, width: int) -> Floats:
    """Vectors `(n, D)` with zeros up to a width."""
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, width - vectors.shape[1]))), dtype=np.float32)


def behind_torch() -> Any:
    """FAISS, with no more threads than torch has: one, in processes that share a machine."""
    faiss = faiss_behind_torch()
    faiss.omp_set_num_threads(min(faiss.omp_get_max_threads(), torch.get_num_threads()))
    return faiss
