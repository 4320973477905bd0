"""Statements that hold for all numbers: orders, schedules, splits, checksums, logits, pooling, colours."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igpt.data import few_per_class, stratified_split
from igpt.interop.crc32c import crc32c
from igpt.model.features import pooling
from igpt.model.objectives import covering_masks
from igpt.model.order import inverse_order, pixel_order
from igpt.model.sampling import SamplingOptions, filter_logits, unmasking_schedule
from igpt.palette.palette import Palette
from igpt.training.optimizers import warmup_cosine

ORDERS = st.sampled_from(["raster", "column", "spiral", "random"])
SIDES = st.integers(1, 20)


@given(ORDERS, SIDES)
def test_an_order_and_its_inverse_undo_each_other(order, side):
    places, raster = pixel_order(order, side), torch.arange(side * side)
    inverse = inverse_order(places)
    assert torch.equal(places[inverse], raster)
    assert torch.equal(inverse[places], raster)


@given(st.integers(0, 3000), st.integers(1, 300))
def test_a_schedule_fixes_every_pixel_once_and_some_in_every_pass(count, steps):
    schedule = unmasking_schedule(count, steps)
    assert sum(schedule) == count
    assert len(schedule) == min(steps, count)
    assert all(part >= 1 for part in schedule)


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=120), st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_a_split_is_a_partition_that_gives_each_class_its_share(labels, share, seed):
    kept, off = stratified_split(labels, share, seed)
    assert sorted(kept + off) == list(range(len(labels)))
    assert len(off) == round(len(labels) * share)
    before, after = Counter(labels), Counter(labels[index] for index in off)
    for value, count in before.items():
        assert abs(after[value] - count * share) < 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 99))
def test_few_per_class_are_so_many_of_each_and_none_twice(labels, count, seed):
    if min(Counter(labels).values()) < count:
        return
    indices = few_per_class(labels, count, seed)
    assert indices == sorted(set(indices))
    assert set(Counter(labels[index] for index in indices).values()) == {count}


@pytest.mark.parametrize(
    ("data", "checksum"),
    [  # RFC 3720, appendix B.4, and the check value of the Castagnoli polynomial
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_of_published_messages(data, checksum):
    assert crc32c(data) == checksum


def bit_by_bit(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@given(st.binary(max_size=3000), st.integers(0, 40))
def test_crc32c_is_the_remainder_taken_bit_by_bit(data, repeats):
    data = data[:300] * repeats if repeats > 20 else data
    assert crc32c(data) == bit_by_bit(data)


LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=24)


@given(LOGITS, st.floats(0.05, 20), st.integers(0, 30), st.floats(0.01, 1))
def test_filtering_keeps_the_likeliest_and_leaves_a_distribution(values, temperature, top_k, top_p):
    logits = torch.tensor([values])
    kept = filter_logits(logits, SamplingOptions(temperature, top_k, top_p))[0]
    finite = kept.isfinite()
    assert finite[logits[0].argmax()] or kept.max() == kept[logits[0] == logits[0].max()].max()
    assert torch.allclose(kept[finite], logits[0][finite] / temperature)
    assert kept.softmax(0).sum().item() == pytest.approx(1, abs=1e-5)
    if 0 < top_k < len(values) and len(set(values)) == len(values):
        assert finite.sum() <= top_k
    shares = (logits[0].double() / temperature).softmax(0)
    if not top_k:
        assert shares[finite].sum() >= top_p - 1e-4
        if finite.sum() > 1:
            assert shares[finite].sum() - shares[finite].min() < top_p + 1e-4  # one fewer would not do
    assert not finite.all() or top_p == 1 or top_k or shares.sum() >= top_p - 1e-4


@given(ORDERS, SIDES, st.data())
def test_pooling_weights_of_a_cell_sum_to_one_and_each_pixel_is_in_one_cell(order, side, data):
    grid = data.draw(st.integers(1, side))
    weights = pooling(pixel_order(order, side), grid, (side, side))
    assert (weights is None) == (grid == 1)
    if weights is not None:
        assert weights.shape == (grid * grid, side * side)
        assert torch.allclose(weights.sum(1), torch.ones(grid * grid))
        assert torch.equal((weights > 0).sum(0), torch.ones(side * side, dtype=torch.int64))


@settings(max_examples=8)  # each builds a table of all 2^24 colours
@given(st.sets(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6), st.data())
def test_tokens_of_distinct_colours_survive_being_seen(colours, data):
    rgb = np.array(sorted(colours), dtype=np.float64)
    palette = Palette(torch.from_numpy((rgb / 127.5 - 1).astype(np.float32)))
    tokens = torch.tensor([data.draw(st.lists(st.integers(0, len(rgb) - 1), min_size=9, max_size=9))])
    seen = palette.decode(tokens)
    assert torch.equal(seen[0].flatten(1).T.double(), torch.from_numpy(rgb[tokens[0].numpy()]))
    assert torch.equal(palette.encode(seen), tokens)


@given(st.integers(1, 200), st.floats(0.02, 1), st.integers(0, 2**31))
def test_covering_masks_hide_every_position_once(positions, share, seed):
    masks = covering_masks(positions, share, torch.Generator().manual_seed(seed))
    assert torch.equal(masks.sum(0), torch.ones(positions, dtype=torch.int64))
    sizes = masks.sum(1)
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(1, 10**6))
def test_the_rate_is_a_share_and_ends_at_zero(step, warmup, steps):
    share = warmup_cosine(step, warmup, steps)
    assert 0 <= share <= 1
    assert math.isfinite(share)
    if step >= max(warmup, steps):
        assert share < 1e-12
