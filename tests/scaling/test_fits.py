"""The fits of a scaling study against a law that is known: L = E + A / N^a + B / D^b with C = 6 N D."""

import math

import numpy as np
import pytest

from igpt.scaling import fit_study, parabola, power_law

LOWEST, A, B, OF_SIZE, OF_DATA = 1.0, 8.0, 40.0, 0.35, 0.40
TRUE = OF_DATA / (OF_SIZE + OF_DATA)  # N* grows as C to this power, by dL/dN = 0 along C = 6 N D


def best_size(compute):
    """N* of the planted law."""
    return (OF_SIZE * A / (OF_DATA * B)) ** (1 / (OF_SIZE + OF_DATA)) * (compute / 6) ** TRUE


def study(seed, noise, shift=1.0):
    """C, N, D and losses of 4 budgets x 5 sizes, from a quarter to four times the best size, times `shift`."""
    compute = np.repeat(np.geomspace(1e11, 1e13, 4), 5)
    sizes = best_size(compute) * np.tile(np.geomspace(1 / 4, 4, 5), 4) * shift
    tokens = compute / 6 / sizes
    losses = LOWEST + A / sizes**OF_SIZE + B / tokens**OF_DATA
    return compute, sizes, tokens, losses + noise * np.random.default_rng(seed).standard_normal(20)


def test_a_planted_law_is_recovered_within_5_per_cent():
    for seed in range(20):
        fit = fit_study(*study(seed, noise=0.001), seed=seed)
        assert fit.parameters.exponent == pytest.approx(TRUE, rel=0.05)
        assert fit.tokens.exponent == pytest.approx(1 - TRUE, rel=0.05)
        for best in fit.optima:
            assert best.parameters == pytest.approx(best_size(best.budget), rel=0.10)
            assert best.tokens == pytest.approx(best.budget / 6 / best.parameters, rel=0.01)


@pytest.mark.parametrize("noise", [0.001, 0.004])
def test_the_interval_covers_the_truth_in_at_least_90_of_100_draws(noise):
    covered = {"parameters": 0, "tokens": 0}
    for seed in range(100):
        fit = fit_study(*study(seed, noise), seed=seed)
        for name, truth in (("parameters", TRUE), ("tokens", 1 - TRUE)):
            low, high = getattr(fit, name).interval
            covered[name] += low <= truth <= high
    assert min(covered.values()) >= 90, covered


def test_an_interval_says_more_than_that_anything_is_possible():
    few, many = (fit_study(*study(1, noise)).parameters.interval for noise in (0.0005, 0.004))
    assert few[1] - few[0] < 0.05 < many[1] - many[0] < 0.3


def test_where_the_best_size_was_not_trained_no_law_is_claimed():
    fit = fit_study(*study(0, noise=0.0, shift=30.0))
    assert fit.parameters is fit.tokens is None
    assert all("smallest" in best.edge for best in fit.optima)
    assert [best.parameters for best in fit.optima] == pytest.approx(best_size(np.geomspace(1e11, 1e13, 4)) * 30 / 4)


def test_one_budget_at_the_edge_is_enough_to_claim_none():
    compute, sizes, tokens, losses = study(0, noise=0.0)
    last = compute == compute.max()
    sizes[last] *= 30
    losses[last] = LOWEST + A / sizes[last] ** OF_SIZE + B / (compute / 6 / sizes)[last] ** OF_DATA
    fit = fit_study(compute, sizes, tokens, losses)
    assert [best.edge is None for best in fit.optima] == [True, True, True, False]
    assert fit.parameters is None


def test_a_curve_that_is_not_hollow_has_no_optimum():
    compute, sizes, tokens, losses = study(0, noise=0.0)
    assert all("hollow" in best.edge for best in fit_study(compute, sizes, tokens, -losses).optima)


def test_what_is_to_be_high_is_fitted_as_what_is_to_be_low():
    compute, sizes, tokens, losses = study(3, noise=0.001)
    low, high = fit_study(compute, sizes, tokens, losses), fit_study(compute, sizes, tokens, 2 - losses, maximise=True)
    assert high.parameters.exponent == pytest.approx(low.parameters.exponent)
    assert [2 - best.value for best in high.optima] == pytest.approx([best.value for best in low.optima])


def test_parabola_and_power_law_are_exact_on_their_own_kind():
    x = np.array([10.0, 10.5, 11.7, 12.0])
    assert parabola(x, 3 - 2 * x + 0.5 * x**2) == pytest.approx([3, -2, 0.5])
    compute = np.array([1e9, 3e10, 1e12])
    assert power_law(compute, 0.7 * compute**0.45) == pytest.approx((0.7, 0.45))


def test_without_degrees_of_freedom_there_is_a_law_and_no_interval():
    keep = np.tile([False, True, True, True, False], 4)
    fit = fit_study(*(column[keep] for column in study(0, noise=0.001)))
    assert fit.freedom == 0
    assert math.isfinite(fit.parameters.exponent)
    assert fit.parameters.interval is None


def test_two_sizes_are_too_few():
    with pytest.raises(ValueError, match="three sizes"):
        fit_study(*(column[[0, 1, 5, 6]] for column in study(0, noise=0.0)))
