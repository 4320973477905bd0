"""From tokens to RGB: whatever the tokens' model and the cells, what comes out is a distribution over RGB pictures."""

import itertools
import math

import numpy as np
import pytest

from igpt.palette import CellColors
from igpt.palette.cells import fit_cells

COLORS = 12  # of a tiny world, instead of 2^24
TABLE = np.array([0, 2, 0, 2, 1, 1, 0, 2, 2, 2, 0, 0], dtype=np.int16)  # cells of 5, 2 and 5 colours
TRAIN = np.array([9, 0, 1, 0, 0, 3, 0, 0, 0, 0, 5, 2], dtype=np.uint32)  # nothing in cell 2
VAL = np.array([4, 1, 1, 0, 1, 3, 0, 0, 0, 0, 3, 0], dtype=np.uint32)


def tiny_world(pixels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of the tiny world `(144, 2)`, and a distribution over their tokens `(3, 3)`."""
    pictures = np.array(list(itertools.product(range(COLORS), repeat=pixels)))
    return pictures, np.random.default_rng(0).dirichlet(np.ones(9)).reshape(3, 3)


def picture_nats(cells: CellColors, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log p of all pictures, by the learned cells and by uniform ones."""
    pictures, _ = tiny_world()
    of_tokens = -np.log(tokens[TABLE[pictures[:, 0]], TABLE[pictures[:, 1]]])
    learned, uniform = cells.nats(pictures)
    return of_tokens + learned.sum(1), of_tokens + uniform.sum(1)


@pytest.mark.parametrize(
    "cells",
    [
        fit_cells(TABLE, 3, TRAIN, VAL),
        fit_cells(TABLE, 3, 0 * TRAIN, VAL),
        fit_cells(TABLE, 3, TRAIN, 0 * VAL),
        fit_cells(TABLE, 3, TRAIN, TRAIN * 10**6),
    ],
)
def test_the_probabilities_of_all_rgb_pictures_sum_to_one(cells):
    _, tokens = tiny_world()
    for nats in picture_nats(cells, tokens):
        assert np.isfinite(nats).all()
        assert math.fsum(np.exp(-nats)) == pytest.approx(1, abs=1e-14)


def test_in_each_cell_the_probabilities_sum_to_one_and_follow_the_counts():
    cells = fit_cells(TABLE, 3, TRAIN, VAL)
    learned, uniform = (np.exp(-nats) for nats in cells.nats(np.arange(COLORS)))
    np.testing.assert_allclose(np.bincount(TABLE, learned), 1, rtol=1e-14)
    np.testing.assert_allclose(uniform, 1 / np.array([5, 2, 5])[TABLE], rtol=1e-14)
    share, total = cells.share, np.array([17, 3, 0])
    expected = [
        share * count / total[token] + (1 - share) * chance if total[token] else chance
        for count, token, chance in zip(TRAIN.tolist(), TABLE.tolist(), uniform.tolist(), strict=True)
    ]
    np.testing.assert_allclose(learned, expected, rtol=1e-14)
    np.testing.assert_allclose(learned[TABLE == 2], 1 / 5, rtol=1e-14)


def test_the_share_is_the_likeliest_for_the_validation_pixels_and_one_more_of_each_kind():
    many = VAL.astype(np.int64) * 1000
    cells = fit_cells(TABLE, 3, TRAIN, many)
    seen, uniform = cells.parts(np.arange(COLORS))
    shares = np.linspace(0.0005, 0.9995, 1999)[:, None]
    likelihoods = np.log(shares * seen + (1 - shares) * uniform) @ many + np.log(shares * (1 - shares))[:, 0]
    assert cells.share == pytest.approx(shares[likelihoods.argmax(), 0], abs=0.0006)
    assert 0.3 < cells.share < 0.95
    assert fit_cells(TABLE, 3, TRAIN, TRAIN).share < 1


@pytest.mark.parametrize("truth", ["uniform cells", "learned cells", "any"])
def test_its_expected_bits_are_never_below_the_entropy_and_reach_it_where_tokens_and_cells_are_true(truth):
    pictures, tokens = tiny_world()
    cells = fit_cells(TABLE, 3, TRAIN, VAL)
    learned, uniform = picture_nats(cells, tokens)
    rng = np.random.default_rng(1)
    p = {"uniform cells": np.exp(-uniform), "learned cells": np.exp(-learned), "any": rng.dirichlet(np.ones(144))}[
        truth
    ]
    own = np.zeros((3, 3))  # the best model of tokens there is: what the truth says of them
    np.add.at(own, (TABLE[pictures[:, 0]], TABLE[pictures[:, 1]]), p)
    entropy = -(p * np.log(p)).sum()
    for nats, exact in zip(picture_nats(cells, own), ("learned cells", "uniform cells"), strict=True):
        excess = p @ nats - entropy
        if truth == exact:
            assert excess == pytest.approx(0, abs=1e-13)
        else:
            assert excess > 0.01
    assert p @ picture_nats(cells, tokens)[0] - entropy >= -1e-13
