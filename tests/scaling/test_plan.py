"""The plan of a scaling study: what a budget buys."""

from itertools import pairwise

import pytest

from igpt.model import PixelTransformer, TransformerConfig
from igpt.scaling import Planned, Speed, candidates, geometric, plan, training_operations
from igpt.system import UserError

BASE = TransformerConfig(n_layers=6, d_model=96, n_heads=24, n_positions=64, vocab_size=17)
BUDGETS = geometric(1e10, 8e10, 4)


def by_hand(layers, width, images, attended=2):
    """Six a weight and token, attention (half of it where it is causal) and the head: operations of training."""
    tokens, colors = 64, 17
    return (
        images * tokens * (6 * 12 * layers * width**2 + 12 * layers * tokens * width // attended + 6 * width * colors)
    )


def test_operations_are_six_a_weight_and_token_with_attention_and_head():
    shape = TransformerConfig(n_layers=2, d_model=24, n_heads=6, n_positions=64, vocab_size=17)
    assert training_operations(shape, 32) == by_hand(2, 24, 32)
    assert training_operations(shape, 32, causal=False) == by_hand(2, 24, 32, attended=1)


def test_every_run_uses_its_budget_up_to_a_step_and_no_more():
    runs = plan(BASE, BUDGETS, 5, 64)
    assert [run.budget for run in runs] == [budget for budget in BUDGETS for _ in range(5)]
    for run in runs:
        step = by_hand(run.n_layers, run.d_model, 64)
        assert run.operations == run.steps * step
        assert run.budget - step < run.operations <= run.budget
        assert run.tokens == run.steps * 64 * 64
        assert 1 <= run.warmup <= max(1, run.steps // 10)


def test_sizes_keep_head_width_and_aspect_and_are_counted_as_built():
    for run in plan(BASE, BUDGETS, 5, 64):
        assert run.d_model == 4 * run.n_heads
        assert run.n_layers == max(1, round(run.d_model / 16))
        network = PixelTransformer(TransformerConfig(run.n_layers, run.d_model, run.n_heads, 64, 17))
        assert run.parameters == sum(one.numel() for one in network.parameters())


def test_sizes_of_a_budget_differ_and_grow_and_so_do_those_of_the_next():
    runs = plan(BASE, BUDGETS, 5, 64)
    sizes = [[run.parameters for run in runs if run.budget == budget] for budget in BUDGETS]
    assert all(some == sorted(set(some)) for some in sizes)
    assert all(max(one) <= max(other) and min(one) <= min(other) for one, other in pairwise(sizes))
    assert len({run.name for run in runs}) == 20


def test_sizes_lie_between_the_ratios_of_tokens_a_parameter():
    runs = plan(BASE, [1e13], 5, 64, ratios=(20, 80))
    sizes = [run.parameters for run in runs]
    assert min(sizes) == pytest.approx((1e13 / 6 / 80) ** 0.5, rel=0.4)  # depth grows in whole layers
    assert max(sizes) == pytest.approx((1e13 / 6 / 20) ** 0.5, rel=0.4)


def test_a_budget_too_small_for_a_step_of_the_sizes_is_refused():
    with pytest.raises(UserError, match="--smallest: a budget of 1e\\+06 operations allows only 0 sizes one step"):
        plan(BASE, [1e6, 1e10], 5, 64)


def test_the_base_itself_is_among_the_candidates():
    assert BASE in candidates(BASE, 1e6)


def test_hours_follow_the_rate_between_the_two_that_were_measured():
    def seconds(operations):
        return Speed((1e8, 1e10), (1e9, 1e10)).seconds(Planned("", 0, 1, 1, 1, 1, 10, 1, 1, operations)) - 10

    assert seconds(10 * 10**8) == pytest.approx(1.0)
    assert seconds(10 * 10**10) == pytest.approx(10.0)
    assert seconds(10 * 10**9) == pytest.approx(10**0.5)
