"""Clustering by parts, against plain NumPy; what it makes of photos is in tests/test_palette.py."""

import itertools
import os
import sys

import numpy as np
import pytest

from igpt.palette import kmeans
from igpt.palette.kmeans import faiss_behind_torch, lloyd, nearest_of, plus_plus_start, respend, weighted_kmeans


def floats(values):
    return np.array(values, dtype=np.float32)


def distances(points, centroids):
    """Squared, `(N, k)`, in float64."""
    return ((points[:, None].astype(np.float64) - centroids[None]) ** 2).sum(2)


def weighted_means(points, weights, label, k):
    return np.stack([np.average(points[label == c], axis=0, weights=weights[label == c]) for c in range(k)])


def scattered(count=200, dimensions=3, seed=0):
    rng = np.random.default_rng(seed)
    return floats(rng.uniform(0, 255, (count, dimensions))), floats(rng.integers(1, 9, count))


def blobs(count, seed=0):
    """Five points of different weights around each of some places far apart; the weighted mean of each five."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[[0, 100, 200]] * 3), -1).reshape(-1, 3)[rng.permutation(27)[:count]]
    points = floats((places[:, None] + rng.uniform(-3, 3, (count, 5, 3))).reshape(-1, 3))
    weights = floats(rng.integers(1, 9, len(points)))
    return points, weights, weighted_means(points, weights, np.arange(len(points)) // 5, count)


def ordered(centroids):
    return centroids[np.lexsort(np.round(centroids).T)]


def test_the_nearest_centroids_come_first_with_their_squared_distances():
    points, _ = scattered()
    centroids, _ = scattered(7, seed=1)
    exact = distances(points, centroids)
    for count in (1, 2, 7, 9):
        squared, nearest = nearest_of(points, centroids, count)
        np.testing.assert_array_equal(nearest, np.argsort(exact, 1)[:, :count])
        np.testing.assert_allclose(squared, np.sort(exact, 1)[:, :count], rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_of_lloyd_moves_each_centroid_to_the_weighted_mean_of_what_is_nearest_to_it(rounds):
    points, weights = scattered(2000)
    expected = start = points[:5]
    for _ in range(rounds):
        expected = weighted_means(points, weights, distances(points, expected).argmin(1), 5)
    np.testing.assert_allclose(lloyd(points, weights, start, rounds), expected, rtol=1e-4)


def test_the_start_takes_points_by_weight_first_and_then_by_weight_times_squared_distance():
    points, weights = floats([[0, 0], [1, 0], [3, 0], [0, 4]]), floats([4, 2, 1, 3])
    rng, pairs = np.random.default_rng(0), np.zeros((4, 4))
    for _ in range(4000):
        one, other = plus_plus_start(points, weights, 2, rng)
        pairs[distances(points, one[None]).argmin(), distances(points, other[None]).argmin()] += 1
    mass = weights * distances(points, points)  # of the second, given the first
    expected = (weights / weights.sum())[:, None] * mass / mass.sum(1, keepdims=True)
    np.testing.assert_allclose(pairs / 4000, expected, atol=0.03)


def test_the_start_counts_the_distance_to_the_nearest_of_those_chosen():
    points, weights = scattered(60)
    ours = plus_plus_start(points, weights, 12, np.random.default_rng(5))
    rng, chosen = np.random.default_rng(5), []
    for _ in range(12):
        mass = weights * (distances(points, np.stack(chosen)).min(1) if chosen else 1)
        chosen.append(points[np.flatnonzero(np.cumsum(mass) > rng.random() * mass.sum())[0]])
    np.testing.assert_array_equal(ours, chosen)
    assert len(np.unique(ours, axis=0)) == 12


def test_a_start_with_fewer_different_points_than_centroids_takes_some_twice():
    points = floats([[1, 2, 3], [1, 2, 3]])
    np.testing.assert_array_equal(plus_plus_start(points, floats([1, 1]), 2, np.random.default_rng(0)), points)


def moves(points, weights, centroids):
    squared, nearest = nearest_of(points, centroids, 2)
    return respend(points, weights, centroids, squared, nearest)


@pytest.mark.parametrize("swap", [False, True])
def test_the_centroid_that_costs_least_to_lose_goes_to_the_widest_cluster_and_splits_it(swap):
    """Two centroids share what one could serve at a cost of 1; a third serves points 10 to either side of it."""
    points = floats([[0, 0], [0, 1], [90, 50], [110, 50]])
    centroids, weights = floats([[0, 0], [0, 1], [100, 50]]), floats([1, 3, 2, 2])
    if swap:
        points, centroids = points[:, ::-1].copy(), centroids[:, ::-1].copy()
    moved = moves(points, weights, centroids)
    np.testing.assert_array_equal(moved[1], centroids[1])
    low, high = sorted(moved[[0, 2]].tolist())
    expected = floats([[92, 50], [108, 50]])  # 0.8 deviations to either side
    np.testing.assert_allclose([low, high], expected[:, ::-1] if swap else expected, rtol=1e-5)


def test_the_main_axis_of_a_cluster_may_lie_across():
    points = floats([[0, 0, 0], [0, 0, 1], [100 - 6, 100, 100 - 8], [100 + 6, 100, 100 + 8]])
    moved = moves(points, floats([1, 2, 1, 1]), floats([[0, 0, 0], [0, 0, 1], [100, 100, 100]]))
    low, high = sorted(moved[[0, 2]].tolist())
    np.testing.assert_allclose([low, high], [[95.2, 100, 93.6], [104.8, 100, 106.4]], rtol=1e-5)


@pytest.mark.parametrize(("width", "pays"), [(0.8, False), (0.9, True)])
def test_a_split_has_to_gain_more_than_the_drop_costs(width, pays):
    """The split takes away 0.7 of 2 width^2: less than the cost of 1 at 0.8 (0.896), more at 0.9 (1.134)."""
    points = floats([[0, 0], [0, 1], [50 - width, 0], [50 + width, 0]])
    centroids = floats([[0, 0], [0, 1], [50, 0]])
    assert (not np.array_equal(moves(points, floats([1, 1, 1, 1]), centroids), centroids)) == pays


def test_losing_a_centroid_costs_what_its_points_are_farther_from_the_next():
    """The points 5 to either side of the first cost 2 (34 - 25) = 18: less than the split gains, 0.7 x 2 x 64 = 90."""
    points = floats([[-5, 0], [5, 0], [0, 3], [92, 0], [108, 0]])
    moved = moves(points, floats([1, 1, 3, 1, 1]), floats([[0, 0], [0, 3], [100, 0]]))
    assert sorted(moved[[0, 2], 0].tolist()) == pytest.approx([93.6, 106.4])
    np.testing.assert_array_equal(moved[1], [0, 3])


def test_moves_are_the_same_in_other_units_of_length_and_weight():
    points, weights = scattered(400)
    centroids = lloyd(points, weights, points[:20], 2)
    moved = moves(points, weights, centroids)
    assert not np.array_equal(moved, centroids)
    unit = np.float32(2.0**-12)
    np.testing.assert_allclose(moves(points * unit, weights, centroids * unit), moved * unit, rtol=1e-4)
    np.testing.assert_allclose(moves(points, weights * unit, centroids), moved, rtol=1e-4)


def test_where_no_cluster_is_wide_no_centroid_moves():
    centroids = floats([[9, 9], [0, 0], [0, 0]])
    np.testing.assert_array_equal(moves(floats([[0, 0], [9, 9]]), floats([1, 1]), centroids), centroids)


def test_few_points_are_clustered_without_a_word(capfd):
    points = floats([[0, 0], [0, 2], [9, 9]])
    found = lloyd(points, floats([1, 1, 1]), points[[0, 2]], 2)
    np.testing.assert_array_equal(found, [[0, 1], [9, 9]])
    assert capfd.readouterr() == ("", "")


def test_several_centroids_move_at_once_and_none_twice():
    """Each costs what losing it alone would, so that both of a pair may go; the cheapest goes to the widest cluster."""
    points = floats([[0, 0], [0, 1], [0, 50], [0, 52], [90, 0], [110, 0], [480, 0], [520, 0]])
    centroids = floats([[0, 0], [0, 1], [0, 50], [0, 52], [100, 0], [500, 0]])
    moved = moves(points, floats([1, 2, 1, 2, 1, 1, 1, 1]), centroids)
    np.testing.assert_array_equal(moved[3], centroids[3])
    assert sorted(moved[[0, 5], 0].tolist()) == pytest.approx([484, 516])
    assert sorted(moved[[1, 4], 0].tolist()) == pytest.approx([92, 108])
    np.testing.assert_array_equal(moved[2], centroids[2])


def test_a_centroid_that_was_split_is_not_moved_again_though_it_costs_little():
    """The widest cluster, around (100, 50), costs 18 to lose, as its points have another centroid at their side."""
    centroids = floats([[0, 0], [0, 1], [100, 50], [103, 50], [200, 50], [50, 200]])
    wide = [[100, 30], [100, 70], [200, 35], [200, 65], [50, 188], [50, 212]]
    points = floats([[0, 0], [0, 1], [103, 50], *wide])
    moved = moves(points, floats([1, 2, 10, *[1] * 6]), centroids)
    for halves, across, middle, deviation in (((0, 2), 100, 50, 20), ((1, 4), 200, 50, 15), ((3, 5), 50, 200, 12)):
        found = sorted(moved[list(halves)].tolist())
        assert found == [[across, pytest.approx(middle + side * deviation)] for side in (-0.8, 0.8)]


@pytest.mark.parametrize("seed", range(6))
def test_blobs_far_apart_get_a_centroid_each_wherever_the_start_put_them(seed):
    points, weights, means = blobs(20)
    found = weighted_kmeans(points, weights, 20, seed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(ordered(found), ordered(means), atol=1e-2)


def test_one_cluster_is_the_weighted_mean():
    points, weights = scattered()
    mean = np.average(points, axis=0, weights=weights)
    np.testing.assert_allclose(weighted_kmeans(points, weights, 1, 0), mean[None], rtol=1e-5)


def test_sweeps_never_make_the_error_greater_than_rounds_of_lloyd_alone():
    points, weights = scattered(3000)
    for seed in range(5):
        start = plus_plus_start(points, weights, 30, np.random.default_rng(seed))
        alone = distances(points, lloyd(points, weights, start, 4)).min(1) @ weights
        assert distances(points, weighted_kmeans(points, weights, 30, seed)).min(1) @ weights < alone


def test_sweeps_end_where_they_gain_little_and_the_best_of_them_is_returned(monkeypatch):
    points, weights = scattered(3000)
    made = []

    def noted(*arguments):
        made.append(lloyd(*arguments))
        return made[-1]

    monkeypatch.setattr(kmeans, "lloyd", noted)
    found = weighted_kmeans(points, weights, 30, 0)
    errors = [distances(points, centroids).min(1) @ weights for centroids in made]
    assert 2 < len(made) < 20
    np.testing.assert_array_equal(found, made[int(np.argmin(errors))])
    gains = [1 - after / before for before, after in itertools.pairwise(errors)]
    assert min(gains[:-1]) > 2e-3 > gains[-1]


def test_where_torch_and_faiss_bring_an_openmp_each_both_are_let_in_with_one_thread(monkeypatch):
    faiss = faiss_behind_torch()
    before = faiss.omp_get_max_threads()
    monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
    try:
        faiss.omp_set_num_threads(2)
        faiss_behind_torch()
        assert (faiss.omp_get_max_threads(), "KMP_DUPLICATE_LIB_OK" in os.environ) == (2, False)
        monkeypatch.setattr(sys, "platform", "darwin")
        faiss_behind_torch()
        assert (faiss.omp_get_max_threads(), os.environ["KMP_DUPLICATE_LIB_OK"]) == (1, "TRUE")
    finally:
        faiss.omp_set_num_threads(before)
        os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
