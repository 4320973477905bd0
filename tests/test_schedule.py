import itertools

import pytest

from igpt.training.optimizers import warmup_cosine, warmup_stable_decay


def test_the_rate_rises_linearly_falls_as_a_cosine_and_ends_at_zero():
    shares = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(shares) == 1.0
    assert shares[60] == pytest.approx(0.5)
    assert shares[110] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[10:]))


def test_the_rate_stays_zero_after_the_end():
    assert warmup_cosine(500, 10, 110) == pytest.approx(0.0)


def test_a_warm_up_longer_than_the_run_never_exceeds_one():
    assert all(0 < warmup_cosine(step, 100, 10) <= 1 for step in range(10))


def test_wsd_rises_stays_and_falls_to_zero_in_the_last_fifth():
    shares = [warmup_stable_decay(step, 10, 110) for step in range(120)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(shares[10:89]) == {1.0}
    assert shares[88:111:11] == pytest.approx([1.0, 1 - 0.5**0.5, 0.0])
    assert all(later < earlier for earlier, later in itertools.pairwise(shares[88:111]))
    assert set(shares[110:]) == {0.0}


def test_before_its_decay_wsd_does_not_know_where_it_ends():
    assert [warmup_stable_decay(step, 5, 100) for step in range(80)] == [
        warmup_stable_decay(step, 5, 10**6) for step in range(80)
    ]


def test_wsd_begun_anew_warms_up_from_there_and_decays_over_a_fifth_of_what_is_left():
    shares = [warmup_stable_decay(step, 4, 200, start=100) for step in range(100, 201)]
    assert shares == pytest.approx([warmup_stable_decay(step, 4, 100) for step in range(101)])


@pytest.mark.parametrize(("warmup", "steps"), [(100, 10), (1, 1), (0, 3)])
def test_wsd_of_a_short_run_never_exceeds_one_and_never_stands_still_at_first(warmup, steps):
    shares = [warmup_stable_decay(step, warmup, steps) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
