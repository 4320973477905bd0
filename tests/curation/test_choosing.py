"""What is dropped: by hand, and the compressed index against comparing all with all."""

import numpy as np
import pytest
import torch

from igpt.curation import CurationOptions, Effort, Neighbours, differences, index_of
from igpt.curation.choosing import PAIRS, duplicates, far, first_of_each


def told(pairs, out):
    found = duplicates(np.array(pairs, PAIRS), np.array(out))
    return {one: (other, round(difference, 3)) for one, other, difference in found.tolist()}


def test_a_duplicate_has_a_partner_that_stays_and_a_chain_does_not_pass_resemblance_on():
    chain = [(1, 0, 0.1), (1, 2, 0.1), (3, 2, 0.2)]
    assert told(chain, [False] * 4) == {1: (0, 0.1), 3: (2, 0.2)}
    assert told(chain, [True, False, False, False]) == {2: (1, 0.1)}


def test_duplicates_in_parts_are_those_of_going_through_the_images_one_by_one(monkeypatch):
    monkeypatch.setattr("igpt.curation.choosing.AT_ONCE", 7)
    rng = np.random.default_rng(0)
    pairs = [(*rng.choice(60, 2, replace=False).tolist(), round(rng.random(), 3)) for _ in range(150)]
    out, gone, wanted = rng.random(60) < 0.1, set(), {}
    for image in range(60):
        partners = [(apart, min(a, b)) for a, b, apart in pairs if max(a, b) == image]
        partners = [(apart, other) for apart, other in partners if other not in gone and not out[other]]
        if partners and not out[image]:
            gone.add(image)
            wanted[image] = min(partners)[::-1]
    assert told(pairs, out) == wanted


def test_the_nearest_share_of_what_is_left_is_kept_and_ties_go_by_order():
    distances, out = np.array([3, 1, 1, 2, 0], np.float32), np.array([0, 0, 0, 0, 1], bool)
    assert far(distances, out, CurationOptions()).tolist() == [True, False, False, True, False]
    assert far(distances, out, CurationOptions(keep=0.25)).tolist() == [True, False, True, True, False]
    assert far(distances, out, CurationOptions(within=1)).tolist() == [True, False, False, True, False]


def test_equal_ones_have_one_first():
    assert first_of_each(np.array([5, 9, 5, 9, 1], np.uint64)).tolist() == [0, 1, 0, 1, 4]


def test_a_shifted_or_enlarged_picture_is_one_and_noise_is_another():
    torch.manual_seed(0)
    wave = torch.rand(8, 3, 6, 6)
    big = (torch.nn.functional.interpolate(wave, (68, 68), mode="bicubic") * 180 + 30).clamp(0, 255)
    one = torch.nn.functional.adaptive_avg_pool2d(big, 16).round().to(torch.uint8)
    part = torch.nn.functional.adaptive_avg_pool2d(big[..., 3:, :65], 16).round().to(torch.uint8)
    assert differences(one, one).max() == 0
    assert differences(one, part).max() < 0.37
    assert differences(part, one).max() < 0.37
    assert differences(one, one.flip(0)).min() > 0.5


@pytest.mark.parametrize("flat", [10_000, 1_000])
def test_the_nearest_of_a_compressed_index_are_those_of_all_with_all(flat):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 40)).astype(np.float32)
    rows = np.arange(1, 4000, 2)
    index = Neighbours(index_of(lambda some: vectors[some], np.array(rows), flat))
    queries = vectors[rows[:200]] + 0.05 * rng.normal(size=(200, 40)).astype(np.float32)
    apart, found = index.search(queries, 4)
    true = rows[((queries[:, None] - vectors[rows][None]) ** 2).sum(2).argmin(1)]
    assert (found == true[:, None]).any(1).mean() >= (1 if flat > 4000 else 0.95)
    exact = ((queries[:, None] - vectors[found]) ** 2).sum(2)
    assert (apart <= exact * 1.001).all()
    assert flat < 4000 or (apart >= exact * 0.999).all()


def test_an_index_is_as_large_as_was_said_and_a_compressed_one_spares_searches_time():
    vectors = np.random.default_rng(0).normal(size=(3000, 192)).astype(np.float32)
    stored = index_of(lambda some: vectors[some], np.arange(3000))
    assert Effort(3000).bytes() <= len(stored) <= 1.02 * Effort(3000).bytes()
    exact, compressed = Effort(100_000), Effort(1_000_000)
    assert exact.seconds(2000, 1e9) == 2 * exact.seconds(1000, 1e9)
    assert compressed.seconds(1_000_000, 1e9) - compressed.seconds(0, 1e9) < 10 * exact.seconds(1_000_000, 1e9)
