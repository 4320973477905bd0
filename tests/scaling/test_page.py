"""The page of a study: what each measure wants, by values whose best size is known."""

import numpy as np
import pytest

from igpt.model import TransformerConfig
from igpt.scaling import Measure, page, plan

BASE = TransformerConfig(n_layers=6, d_model=96, n_heads=24, n_positions=64, vocab_size=17)
RUNS = plan(BASE, [1e10, 4e10, 1.6e11, 6.4e11], 5, 8, ratios=(50, 5000))
COLUMNS = [np.array([getattr(run, name) for run in RUNS], float) for name in ("budget", "parameters", "tokens")]


def bowl(power):
    """A parabola in log N about the middle of the first budget's sizes, which grows as C to this power."""
    budgets, sizes, _ = COLUMNS
    best = 0.9 * np.sqrt(budgets[0] / 6 / 500) * (budgets / budgets[0]) ** power
    rng = np.random.default_rng(0)
    return 1 + 0.1 * np.log(sizes / best) ** 2 + 1e-4 * rng.standard_normal(len(sizes))


def section(power, logarithm):
    values = np.exp(bowl(power)) if logarithm else bowl(power)
    loss = Measure.of("Loss", "nats", COLUMNS, list(bowl(0.5)), ".4f")
    other = Measure.of("Distance", "squared", COLUMNS, list(values), ".4g", logarithm=logarithm)
    return page("c.yaml", RUNS, [loss, other], "scale.png").split("## What each wants")[1].split("## Runs")[0], other


@pytest.mark.parametrize("logarithm", [False, True])
def test_a_measure_that_wants_faster_growth_than_the_loss_is_said_to(logarithm):
    text, other = section(0.7, logarithm)
    assert other.fit.parameters.exponent == pytest.approx(0.7, abs=0.02)
    assert "distance wants parameters to grow faster than the loss does, by 0.2" in text
    assert "intervals lie apart" in text
    assert "| distance | C^0.7" in text


def test_growths_within_the_noise_are_not_told_apart():
    assert "cannot be told apart" in section(0.5, False)[0]


def test_a_measure_without_a_law_is_compared_with_nothing():
    text, _ = section(2.0, False)
    assert "distance has no law: whether it wants other growth is not known" in text


def test_a_distance_is_shown_in_its_own_unit_and_fitted_by_its_logarithm():
    _, other = section(0.5, True)
    assert [other.back(best.value) for best in other.fit.optima] == pytest.approx([np.e] * 4, rel=0.01)


def test_without_intervals_nothing_is_said_of_a_difference():
    few = [at for at in range(20) if at % 5 in (1, 2, 3)]  # a parabola goes through any three points
    columns, values = [column[few] for column in COLUMNS], bowl(0.5)[few]
    made = [Measure.of(name, "nats", columns, list(values), ".4f") for name in ("Loss", "Accuracy")]
    text = page("c.yaml", [RUNS[at] for at in few], made, "scale.png")
    assert "without an interval of both nothing says whether that is noise" in text
