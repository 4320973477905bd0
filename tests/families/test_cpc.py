"""CPC: its loss against NumPy, its patches, and what a context knows of."""

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.families import CPC
from igpt.families.models.cpc import info_nce
from igpt.system import UserError
from igpt.testing import check_source


def images(count, rows=8, columns=8):
    return torch.randint(0, 256, (count, 3, rows, columns), generator=rng_of(5), dtype=torch.uint8)


def cpc(**options):
    torch.manual_seed(0)
    sizes = {"resolution": 8, "patch": 2, "stride": 1, "width": 3, "depth": 2, "nearest": 2, "farthest": 4}
    return CPC(**(sizes | options)).eval()


def numpy_info_nce(codes, context, predictions, below):
    """Equations 3 and 4 of van den Oord et al. 2018 over one distance, prediction by prediction."""
    count, _, rows, columns = codes.shape
    places = [(b, row, column) for b in range(count) for row in range(rows - below) for column in range(columns)]
    losses = []
    for b, row, column in places:
        predicted = predictions[below] @ context[b, :, row, column]
        densities = {(i, r, c): np.exp(codes[i, :, r + below, c] @ predicted) for i, r, c in places}
        losses.append(-np.log(densities[b, row, column] / sum(densities.values())))
    return np.mean(losses)


@torch.no_grad()
def test_the_loss_is_that_of_the_papers_equations_and_its_mean_over_distances():
    module, given = cpc(), images(3)
    *_, codes, context = (part.double().numpy() for part in module.stages(given))
    maps = [predict.weight.double().numpy()[:, :, 0, 0] for predict in module.predictions]
    predictions = {below: one / np.sqrt(codes.shape[1]) for below, one in enumerate(maps, 2)}  # width does not matter
    expected = np.mean([numpy_info_nce(codes, context, predictions, below) for below in (2, 3, 4)])
    assert float(module.losses(given, rng_of(0))["loss"]) == pytest.approx(expected, rel=1e-5)


def test_scores_that_are_all_alike_cost_the_logarithm_of_their_number():
    assert float(info_nce(torch.full((7, 7), 0.3))) == pytest.approx(np.log(7), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("patch", "stride", "columns"), [(4, 2, 10), (3, 1, 8), (2, 2, 8)])
def test_patches_are_cut_from_the_picture_row_by_row(patch, stride, columns):
    given = images(2, 8, columns)
    module = cpc(resolution=[8, columns], patch=patch, stride=stride, nearest=1, farthest=2)
    found = module.patches(given)
    rows, across = (8 - patch) // stride + 1, (columns - patch) // stride + 1
    assert tuple(found.shape) == (2, rows, across, 3, patch, patch)
    for row in range(rows):
        for column in range(across):
            up, left = row * stride, column * stride
            own = given[:, :, up : up + patch, left : left + patch] / 127.5 - 1
            assert torch.equal(found[:, row, column], own)


@torch.no_grad()
def test_what_is_said_of_a_patch_depends_on_its_pixels_alone():
    module, given, other = cpc(), images(1), images(2)[1:]
    changed = other.clone()
    changed[:, :, 2:4, 5:7] = given[:, :, 2:4, 5:7]  # the patch in row 2, column 5
    for one, two in zip(module.stages(given)[:-1], module.stages(changed)[:-1], strict=True):
        torch.testing.assert_close(one[..., 2, 5], two[..., 2, 5])
        assert not torch.isclose(one, two).all(1)[:, :2].any()


@torch.no_grad()
@pytest.mark.parametrize("row", range(6))
def test_the_context_at_a_row_knows_nothing_of_rows_below_it_and_something_of_those_in_reach(row):
    module, given = cpc(depth=3), images(2)
    changed = given.clone()
    changed[:, :, row + 2 :] = 255 - changed[:, :, row + 2 :]  # pixels below those of the patches in this row
    one, two = module.stages(given)[-1], module.stages(changed)[-1]
    assert torch.equal(one[:, :, : row + 1], two[:, :, : row + 1])
    assert not torch.isclose(one[:, :, row + 1 :], two[:, :, row + 1 :]).all()
    changed = given.clone()
    changed[:, :, row] = 255 - changed[:, :, row]
    moved = ~torch.isclose(module.stages(changed)[-1], one).all(1)
    seen = [other for other in range(7) if moved[:, other].any()]
    assert seen == list(range(max(row - 1, 0), min(row + 4, 7)))  # its own patches', and three rows below the last


def test_what_is_predicted_takes_no_gradient_from_a_context_that_saw_it():
    module, given = cpc(nearest=2, farthest=2), images(2)
    pictures = (given / 127.5 - 1).requires_grad_()
    module.patches = lambda _: pictures.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
    module.stages(given)[-1][:, :, 0].sum().backward()
    assert pictures.grad[:, :, :2].any()
    assert not pictures.grad[:, :, 2:].any()  # where the nearest patches that it predicts begin


def test_it_keeps_the_contract_of_a_source_and_offers_neither_likelihood_nor_samples():
    check_source(cpc)
    check_source(lambda: cpc(resolution=[8, 12], patch=4, stride=2, nearest=1, farthest=2))
    assert not cpc().offers("sample")
    assert not cpc().offers("log_likelihood")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, "sizes must be at least 1"),
        ({"patch": 3, "stride": 2}, "a patch and a multiple of the stride"),
        ({"patch": 9}, "a patch and a multiple of the stride"),
        ({"nearest": 0}, r"in 1\.\.6, as there are 7 rows"),
        ({"farthest": 7}, r"in 1\.\.6, as there are 7 rows"),
        ({"nearest": 4, "farthest": 3}, r"in 1\.\.6"),
    ],
)
def test_numbers_that_describe_no_network_are_one_line(options, words):
    with pytest.raises(UserError, match=rf"model\.init_args.*{words}"):
        cpc(**options)
