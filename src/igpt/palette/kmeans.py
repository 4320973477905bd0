"""Weighted k-means on many points in few dimensions: k-means++, Lloyd's rounds in FAISS, and splits of clusters.

Lloyd's rounds never move a centroid across an empty stretch of space. Between rounds we therefore drop the clusters
that cost least to lose and split those that gain most by it. Everything is deterministic in the seed.
"""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igpt.system import with_progress

Floats = NDArray[np.float32]

LLOYD_ROUNDS = 4  # Lloyd rounds between two looks at what to drop and what to split
MAX_SWEEPS = 40
TOLERANCE = 2e-3  # stop when a sweep lowers the error by a smaller share than this
SPLIT_GAIN = 0.7  # share of the variance along the main axis that a split removes (0.75 uniform, 0.64 normal)


def weighted_kmeans(points: Floats, weights: Floats, k: int, seed: int) -> Floats:
    """Cluster `points (N, D)` with `weights (N,)` into `k <= N` centroids `(k, D)`, float32.

    Among all sweeps the centroids with the least weighted squared error are returned.
    """
    rng = np.random.default_rng(seed)
    centroids = lloyd(points, weights, plus_plus_start(points, weights, k, rng), LLOYD_ROUNDS)
    best, best_error = centroids, np.inf
    for _ in with_progress(range(MAX_SWEEPS), MAX_SWEEPS, "rounds at most: k-means", quiet=True):
        squared, nearest = nearest_of(points, centroids, 2)
        error = float(squared[:, 0].astype(np.float64) @ weights)
        improved = error < best_error * (1 - TOLERANCE)
        if error < best_error:
            best, best_error = centroids, error
        if not improved or k == 1:
            break
        moved = respend(points, weights, centroids, squared, nearest)
        centroids = lloyd(points, weights, moved, LLOYD_ROUNDS)
    return best


def plus_plus_start(points: Floats, weights: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Choose `k` of the points: each with probability proportional to weight x squared distance to those chosen."""
    columns = np.ascontiguousarray(points.T)
    chosen = np.empty((k, points.shape[1]), dtype=np.float32)
    squared = np.ones(len(points), dtype=np.float32)  # the first draw is by weight alone
    for j in with_progress(range(k), k, "colours: k-means begins", quiet=True):
        mass = np.cumsum(squared * weights, dtype=np.float64)
        index = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        chosen[j] = points[min(index, len(points) - 1)]
        distance = sum((column - value) ** 2 for column, value in zip(columns, chosen[j], strict=True))
        squared = distance if j == 0 else np.minimum(squared, distance, out=squared)
    return chosen


def lloyd(points: Floats, weights: Floats, start: Floats, rounds: int) -> Floats:
    """Run `rounds` of Lloyd's algorithm from `start` in FAISS."""
    faiss = faiss_behind_torch()
    dimensions, k = points.shape[1], len(start)
    kmeans = faiss.Kmeans(
        dimensions, k, niter=rounds, seed=1, max_points_per_centroid=len(points), min_points_per_centroid=1
    )
    kmeans.train(points, weights=weights, init_centroids=start)
    return np.array(kmeans.centroids, dtype=np.float32)


def faiss_behind_torch() -> Any:
    """FAISS, imported only now, and behind torch: the other order deadlocks forked workers."""
    import torch  # noqa: F401

    alone = sys.platform == "linux"  # elsewhere both bring an OpenMP, and the second must be let in with one thread
    if not alone:
        os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
    import faiss

    if not alone:
        faiss.omp_set_num_threads(1)
    return faiss


def nearest_of(points: Floats, centroids: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Squared distances and indices, both `(N, min(count, k))`, of the nearest centroids, the nearest first."""
    index = faiss_behind_torch().IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    squared, nearest = index.search(points, min(count, len(centroids)))
    return squared, nearest


def respend(points: Floats, weights: Floats, centroids: Floats, squared: Floats, nearest: NDArray[np.int64]) -> Floats:
    """Move centroids from clusters that are cheap to drop to clusters that gain more by a split."""
    k, dimensions = centroids.shape
    label, weight = nearest[:, 0], weights.astype(np.float64)

    def per_cluster(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(label, values, minlength=k).astype(np.float64)

    mass = per_cluster(weight)
    drop_cost = per_cluster(weight * (squared[:, 1] - squared[:, 0]))
    offset = points - centroids[label]
    scatter = np.empty((k, dimensions, dimensions))
    for i in range(dimensions):
        for j in range(i, dimensions):
            scatter[:, i, j] = scatter[:, j, i] = per_cluster(weight * offset[:, i] * offset[:, j])
    spread, axes = np.linalg.eigh(scatter)
    step = 0.8 * np.sqrt(spread[:, -1].clip(0) / np.maximum(mass, 1e-12))[:, None] * axes[:, :, -1]

    moved, touched = centroids.copy(), set[int]()
    costliest = iter(np.argsort(-spread[:, -1], kind="stable").tolist())
    for cheap in np.argsort(drop_cost, kind="stable").tolist():
        if cheap in touched:
            continue
        split = next((c for c in costliest if c not in touched), None)
        if split is None or split == cheap or drop_cost[cheap] >= SPLIT_GAIN * spread[split, -1]:
            break
        moved[cheap] = centroids[split] + step[split]
        moved[split] = centroids[split] - step[split]
        touched |= {cheap, split}
    return moved
