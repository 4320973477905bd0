"""`Neighbours`: the nearest of many vectors by FAISS, exact for few of them, compressed for millions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igpt.palette import faiss_behind_torch

Floats = NDArray[np.float32]
FLAT = 100_000  # vectors up to which all are compared with all
PIECES, BITS = 32, 8  # bytes of a compressed vector
LISTS, PER_LIST, PROBED = 1024, 40, 8
Vectors = Callable[[NDArray[np.int64]], Floats]  # those of some numbers
AT_ONCE = 4096  # vectors that are read at a time


class Neighbours:
    """An index of vectors `(N, D)` that are read a block at a time.

    Up to `flat` vectors it is exact. Beyond, each is 32 bytes (inverted lists and product quantisation, trained on at
    most 40,960 of them): 40 MB a million with their numbers, whatever their width.

    Args:
        vectors: gives those of some numbers `(n,)`, float `(n, D)`.
        rows: the numbers of those to find.
        flat: most vectors for the exact index; `FLAT` if left out.
    """

    def __init__(self, vectors: Vectors, rows: NDArray[np.int64], flat: int | None = None) -> None:
        self.rows, self.count, self.flat = rows, len(rows), FLAT if flat is None else flat
        width = vectors(rows[:1]).shape[1]
        self.padding = -width % PIECES if self.count > self.flat else 0
        self.index = self._empty(width, vectors)
        for start in range(0, self.count, AT_ONCE):
            self.index.add(self._padded(vectors(rows[start : start + AT_ONCE])))

    def _empty(self, width: int, vectors: Vectors) -> Any:
        faiss = faiss_behind_torch()
        if self.count <= self.flat:
            return faiss.IndexFlatL2(width)
        width += self.padding
        lists = min(LISTS, max(1, self.count // PER_LIST))
        chosen = np.linspace(0, self.count - 1, min(self.count, max(2**BITS, lists) * PER_LIST)).astype(np.int64)
        index = faiss.IndexIVFPQ(faiss.IndexFlatL2(width), width, lists, PIECES, BITS)
        index.nprobe = min(PROBED, lists)
        index.train(self._padded(vectors(self.rows[chosen])))
        return index

    def _padded(self, vectors: Floats) -> Floats:
        return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, self.padding))), dtype=np.float32)

    def search(self, queries: Floats, count: int) -> NDArray[np.int64]:
        """Numbers `(Q, min(count, N))` of the nearest vectors; -1 where the lists looked into held too few."""
        _, found = self.index.search(self._padded(queries), min(count, self.count))
        return np.where(found < 0, -1, self.rows[found])
