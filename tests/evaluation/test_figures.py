"""Distances and neighbours against torchmetrics and torch-fidelity, and on sets whose answer is known."""

import pytest
import torch

from igpt.evaluation import (
    Judge,
    blurred,
    copy_rule,
    frechet_distance,
    kernel_distance,
    nearest,
    neighbourhoods,
    noisy,
    polynomial_mmd,
    shuffled,
)
from igpt.system import UserError
from igpt_datamodules import Digits


def normal(count, width, seed, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double() + shift


@pytest.fixture(scope="module")
def sets():
    return normal(300, 12, 0), normal(200, 12, 1, 0.3)


def test_frechet_distance_is_torchmetrics(sets):
    fid = pytest.importorskip("torchmetrics.image.fid")
    moments = [part for one in sets for part in (one.mean(0), torch.cov(one.T))]
    assert frechet_distance(*sets) == pytest.approx(float(fid._compute_fid(*moments)), rel=1e-4)


def test_frechet_distance_of_a_set_moved_is_the_squared_move(sets):
    assert frechet_distance(sets[0], sets[0] + 2) == pytest.approx(4 * 12)
    assert frechet_distance(sets[0], sets[0]) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_torchmetrics(sets):
    kid = pytest.importorskip("torchmetrics.image.kid")
    one, other = sets[0][:200], sets[1]
    assert polynomial_mmd(one, other) == pytest.approx(float(kid.poly_mmd(one, other)), rel=1e-4)


def test_kernel_distance_of_equal_distributions_is_unbiased():
    found = [kernel_distance(normal(300, 8, seed), normal(300, 8, 500 + seed)) for seed in range(40)]
    values, errors = torch.tensor([one.distance for one in found]), torch.tensor([one.error for one in found])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    assert values.std() == pytest.approx(float(errors.square().mean().sqrt()), rel=0.4)


def test_precision_and_recall_are_torch_fidelity(sets):
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    wanted = prc.calculate_precision_recall_full(sets[1], sets[0])
    found = neighbourhoods(*sets)
    assert (found.precision, found.recall) == pytest.approx(wanted, abs=1e-4)


def test_density_and_coverage_count_balls(sets):
    real, drawn = sets
    around = torch.cdist(real, real).sort(1).values[:, 3]
    inside = torch.cdist(real, drawn) <= around[:, None]
    found = neighbourhoods(real, drawn)
    assert found.density == pytest.approx(float(inside.double().sum(0).mean() / 3))
    assert found.coverage == pytest.approx(float(inside.any(1).double().mean()))


def test_blocks_change_nothing(sets, monkeypatch):
    whole, near = neighbourhoods(*sets), nearest(sets[1], sets[0])
    monkeypatch.setattr("igpt.evaluation.neighbours.BLOCK", 7)
    assert neighbourhoods(*sets) == pytest.approx(whole)
    assert torch.equal(nearest(sets[1], sets[0])[0], near[0])
    one = Judge(*sets)
    assert torch.equal(one.nearest(sets[1])[0], near[0])
    assert torch.equal(one.nearest(sets[1])[1], near[1])


def test_planted_copies_are_flagged_and_held_out_images_are_not():
    training, held_out = normal(500, 10, 0), normal(200, 10, 1)
    rule = copy_rule(nearest(held_out, training)[1])
    near = training[::5] + 1e-5 * normal(100, 10, 2)
    assert rule.flagged(nearest(training, training)[1]).all()
    assert rule.flagged(nearest(near, training)[1]).all()
    assert rule.flagged(nearest(held_out, training)[1]).double().mean() <= 0.05


@pytest.mark.parametrize("half", [0, 1])
def test_the_rule_from_half_of_the_test_images_flags_at_most_5_per_cent_of_the_other_half_and_every_copy(half):
    data = Digits()
    pixels = {}
    for name in ("train", "test"):
        images = data.images(name)
        pixels[name] = torch.stack([images[at][0] for at in range(len(images))])[:, 0].flatten(1).float() / 16
    test, training = pixels["test"], pixels["train"]
    rule = copy_rule(nearest(test[half::2], training)[1])
    other = rule.flagged(nearest(test[1 - half :: 2], training)[1]).double().mean()
    assert float(other) <= 0.05
    copies = training[::7] + 0.02 * normal(len(training[::7]), 64, 0).float()
    assert rule.flagged(nearest(training[::7], training)[1]).all()
    assert rule.flagged(nearest(copies, training)[1]).all()


def test_more_blur_and_more_noise_are_further_away():
    data = Digits()
    train, test = (torch.stack([data.images(name)[i][0] for i in range(300)]) for name in ("train", "test"))
    pixels = [one.float()[:, 0].flatten(1) / 255 for one in (train, test)]
    judge = Judge(*pixels)
    floor = judge.figures(pixels[1])
    for worse in (
        [blurred(test, size) for size in (0.5, 1.0, 2.0)],
        [noisy(test, share) for share in (0.25, 0.5, 1.0)],
    ):
        found = [judge.figures(one.float()[:, 0].flatten(1) / 255) for one in worse]
        for name in ("frechet", "kernel"):
            values = [getattr(one, name) for one in (floor, *found)]
            assert values == sorted(values)
    assert torch.equal(shuffled(test).flatten(2).sort(2).values, test.flatten(2).sort(2).values)


@pytest.mark.parametrize("features", [torch.zeros(1, 3), torch.full((4, 2), torch.nan), torch.zeros(4)])
def test_features_that_are_none_are_refused(features):
    with pytest.raises(UserError, match="features are"):
        frechet_distance(features, features)
