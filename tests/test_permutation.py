import time
import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from igpt.data.randomness import permuted

SIZES = [*range(1, 70), 97, 127, 128, 129, 1000, 1009, 4096, 4097, 65_535, 65_537, 104_729]


@pytest.mark.parametrize("key", [(0, 0), (3, 1), (2**40, 7)])
def test_every_index_is_sent_to_exactly_one_place(key):
    for count in SIZES:
        places = permuted(np.arange(count), count, key)
        assert places.dtype == np.int64
        np.testing.assert_array_equal(np.sort(places), np.arange(count), err_msg=str(count))


def test_an_index_is_sent_to_the_same_place_whoever_it_is_asked_together_with():
    count = 1009
    places = permuted(np.arange(count), count, (5, 2))
    assert [int(permuted(np.array([index]), count, (5, 2))[0]) for index in range(50)] == places[:50].tolist()
    assert permuted(np.array([], dtype=np.int64), count, (5, 2)).tolist() == []


def test_another_seed_or_epoch_is_another_order():
    orders = [permuted(np.arange(1000), 1000, key) for key in ((0, 0), (0, 1), (1, 0))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (orders[one] == orders[other]).sum() < 12  # one in a thousand agrees by chance


@pytest.mark.parametrize("count", [3, 4])
def test_all_orders_of_a_few_things_come_up_equally_often(count):
    keys = 200 * len(list(permutations(range(count))))
    seen = [tuple(permuted(np.arange(count), count, (0, key)).tolist()) for key in range(keys)]
    counts = [seen.count(one) for one in permutations(range(count))]
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("count", [1000, 10_000, 65_536, 100_003])
def test_displacements_pairs_and_cycles_are_those_of_a_random_order(count):
    places = permuted(np.arange(count), count, (1, 2))
    displacement = (places - np.arange(count)) % count
    assert chisquare(np.bincount(displacement * 20 // count, minlength=20)).pvalue > 0.001
    start, end = np.arange(count) * 8 // count, places * 8 // count
    table = np.bincount(start * 8 + end, minlength=64)
    assert chisquare(table).pvalue > 0.001  # where an index ends does not depend on where it starts
    step = np.diff(places) % count  # neighbours do not stay together
    assert chisquare(np.bincount(step * 20 // count, minlength=20)).pvalue > 0.001
    assert abs(np.corrcoef(np.arange(count), places)[0, 1]) < 4 / count**0.5


def test_the_fixed_points_of_many_orders_are_as_many_as_chance_gives():
    fixed = [int((permuted(np.arange(100), 100, (9, epoch)) == np.arange(100)).sum()) for epoch in range(1000)]
    assert 0.85 < np.mean(fixed) < 1.15  # one a permutation, with a deviation of 1 / sqrt(1000)


def test_a_place_among_100_million_costs_neither_memory_nor_time():
    count = 100_000_000
    tracemalloc.start()
    began = time.perf_counter()
    places = permuted(np.arange(count - 1000, count), count, (0, 0))
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(places.tolist())) == 1000
    assert 0 <= places.min() <= places.max() < count
    assert seconds < 0.5  # a list of the order takes seconds
    assert peak < 1 << 20  # and 800 MB


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_is_refused(index):
    with pytest.raises(ValueError, match=r"outside of 0 \.\. 9"):
        permuted(np.array([index]), 10, (0,))


def test_a_run_goes_on_in_the_order_that_it_began_with_whatever_the_version():
    assert permuted(np.arange(4), 4, (3, 1)).tolist() == [0, 3, 2, 1]
    assert permuted(np.arange(12), 12, (3, 1)).tolist() == [11, 1, 8, 3, 7, 6, 0, 2, 10, 5, 4, 9]
    assert permuted(np.arange(4) * 10**14, 10**15, (3, 1)).tolist() == [
        398633224555279,
        470687629927179,
        959483325756767,
        980812725330108,
    ]
