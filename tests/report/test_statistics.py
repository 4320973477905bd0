"""The statistics of the page against SciPy, and against counting by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from igpt.report.comparing import percent, std
from igpt.report.figures import thinned
from igpt.report.findings import CANNOT, NO_DATA, NOT_SEEN, SEEN, chance_of_falling, difference, points, ranks, spearman
from igpt.report.schema import Point


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0, 2.0], [5.0], [2.0, 2.0]])
def test_equal_values_share_the_mean_of_their_ranks(values):
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))


def test_the_rank_correlation_is_scipys_also_with_ties():
    rng = np.random.default_rng(0)
    for length in (4, 5, 9):
        a, b = rng.integers(0, 4, length).astype(float), rng.normal(size=length)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_there_is_no_rank_correlation_where_one_side_is_constant_or_short():
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0, 2.0], [4.0, 4.0]) is None
    assert spearman([1.0], [2.0]) is None
    assert spearman([], []) is None


def test_the_chance_of_an_order_is_its_share_among_all_orders():
    losses, accuracies = [2.0, 1.7, 1.6, 1.6, 1.2], [0.5, 0.7, 0.6, 0.8, 0.8]
    given = stats.spearmanr(losses, accuracies).statistic
    among = [stats.spearmanr(losses, order).statistic for order in permutations(accuracies)]
    assert chance_of_falling(losses, accuracies) == pytest.approx(np.mean([rho <= given + 1e-9 for rho in among]))
    assert chance_of_falling([4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(1 / 24)


def test_beyond_seven_points_the_chance_comes_from_drawn_orders():
    losses = [float(value) for value in range(9, 0, -1)]
    accuracies = [0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.9, 0.7, 0.8]
    expected = stats.spearmanr(losses, accuracies, alternative="less").pvalue
    assert chance_of_falling(losses, accuracies) == pytest.approx(expected, abs=0.002)
    assert chance_of_falling(losses, [-value for value in accuracies]) > 0.99


def test_standard_deviation_and_errors_are_the_textbooks():
    values = [0.91, 0.94, 0.97]
    assert std(values) == pytest.approx(np.std(values, ddof=1))
    assert difference([values, [0.5, 0.5]], None).error == pytest.approx(stats.sem(values))
    assert std([0.9]) is None
    rng = np.random.default_rng(0)
    drawn = np.std(rng.binomial(400, 0.8, 100_000) / 400)
    assert difference([[0.8], [0.8]], 400).error == pytest.approx(math.hypot(drawn, drawn), rel=0.01)


def test_a_difference_is_seen_only_beyond_its_standard_error():
    wide = difference([[0.90, 0.94], [0.89, 0.93]], None)
    assert wide.error == pytest.approx(math.hypot(0.02, 0.02))
    assert wide.verdict == CANNOT
    assert difference([[0.90, 0.91], [0.80, 0.81]], None).verdict == SEEN
    assert difference([[0.80, 0.81], [0.90, 0.91]], None).verdict == NOT_SEEN


def test_a_difference_as_large_as_its_error_cannot_be_told():
    exact = difference([[0.0, 0.5], [-0.25, -0.25]], None)
    assert exact.value == 0.5
    assert exact.error == pytest.approx(0.25)
    tie = difference([[0.25, 0.75], [0.25, 0.25]], None)
    assert tie.value == tie.error == 0.25
    assert tie.verdict == CANNOT


def test_single_runs_are_judged_by_the_sampling_of_their_test_images_and_say_so():
    few, many = (difference([[0.92], [0.88]], count) for count in (100, 10_000))
    assert few.verdict == CANNOT
    assert many.verdict == SEEN
    errors = [math.sqrt(share * (1 - share) / 10_000) for share in (0.92, 0.88)]
    assert many.error == pytest.approx(math.hypot(*errors))
    assert "single run" in many.text()
    unknown = difference([[0.9], [0.1]], None)
    assert unknown.error is None
    assert unknown.verdict == NO_DATA


def test_equal_runs_do_not_make_an_error_of_zero():
    same = difference([[0.91, 0.91], [0.90, 0.90]], 100)
    assert same.verdict == CANNOT
    assert "all runs equal" in same.text()


def test_pairs_are_judged_by_the_spread_of_their_differences():
    first, second = [0.91, 0.72, 0.53], [0.90, 0.70, 0.50]
    gap = difference([first, second], None, paired=True)
    assert gap.value == pytest.approx(0.02)
    assert gap.error == pytest.approx(stats.sem([0.01, 0.02, 0.03]))
    assert gap.verdict == SEEN
    assert difference([first, second], None).verdict == CANNOT


def test_numbers_are_written_in_percent_and_points():
    assert percent([0.901, 0.903]) == "90.2 ± 0.1 %"
    assert percent([0.5]) == "50.0 %"
    assert points(-0.0123) == "-1.2 points"


def test_a_thinned_curve_keeps_its_mean_and_its_end():
    points_ = [Point(step, float(step % 7)) for step in range(1, 1001)]
    few = thinned(points_, 50)
    assert len(few) == 50
    assert few[-1].step == 1000
    assert np.mean([p.value for p in few]) == pytest.approx(np.mean([p.value for p in points_]))
    assert thinned(points_, 2000) is points_
