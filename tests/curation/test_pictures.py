"""What two pictures differ by, against every window laid over every pixel; and that cheap bounds lose no pair."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from igpt.curation import CurationOptions, differences, thumbnails
from igpt.curation.pictures import coarse, reach
from tests.curation.test_held_out import pairs

YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.0676, -0.1324, 0.2], [0.2, -0.1676, -0.0324]])  # colours at 0.4


def by_hand(first, second):
    """The least residual of 37 comparisons, over slopes, pair by pair, with windows by `grid_sample`."""
    one, other = (torch.einsum("ij,bjhw->bihw", YCC, thumbs.float()) for thumbs in (first, second))

    def slope(planes):
        return (planes.diff(dim=3).square().mean((1, 2, 3)) + planes.diff(dim=2).square().mean((1, 2, 3))) / 2

    found = [(one - other).square().mean((1, 2, 3))]
    for zoom, whole_part in product((0.95, 0.975), ((one, other), (other, one))):
        for right, down in product((zoom - 1, 0.0, 1 - zoom), repeat=2):
            turn = torch.tensor([[zoom, 0.0, right], [0.0, zoom, down]]).expand(len(one), 2, 3)
            where = F.affine_grid(turn, list(one.shape), align_corners=False)
            window = F.grid_sample(whole_part[0], where, padding_mode="border", align_corners=False)
            found.append((window - whole_part[1]).square().mean((1, 2, 3)))
    return torch.stack(found).amin(0) / (torch.minimum(slope(one), slope(other)) + 1)


@pytest.fixture(scope="module")
def candidates():
    """Thumbnails of the candidate pairs of every second patch."""
    seen = []
    pairs(32, 0, lambda one, other: (seen.append((one, other)), torch.zeros(len(one)))[1])
    return [torch.cat(side)[::3] for side in zip(*seen, strict=True)]


def test_a_difference_is_the_least_over_all_windows_but_of_what_is_far_at_half_the_size(candidates):
    found, wanted = differences(*candidates), by_hand(*candidates)
    near, one = found <= 2.5, wanted <= CurationOptions().threshold
    torch.testing.assert_close(found[near], wanted[near], rtol=1e-4, atol=1e-4)
    assert one.sum() > 500
    assert (one & ~near).sum() < 0.01 * one.sum()


@pytest.mark.parametrize("limit", [0.1, CurationOptions().threshold, 0.9])
def test_a_limit_changes_no_difference_up_to_it_and_brings_none_below(candidates, limit):
    exact, found = differences(*candidates), differences(*candidates, limit)
    right = exact <= limit
    assert 0.05 * len(right) < right.sum() < 0.5 * len(right)
    assert torch.equal(found <= limit, right)
    torch.testing.assert_close(found[right], exact[right])


def test_what_is_out_of_reach_of_either_picture_is_far(candidates):
    first, second = candidates
    squared = (coarse(first) - coarse(second)).square().sum(1)
    out = (squared > reach(first)) | (squared > reach(second))
    assert 0.1 * len(out) < out.sum() < len(out)
    assert differences(first, second)[out].min() > 2.5


def test_no_pairs_have_no_differences():
    none = thumbnails(torch.empty(0, 3, 32, 32))
    assert differences(none, none, 0.37).shape == (0,)
