import itertools

import pytest

from igpt.training.optimizers import warmup_cosine


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
