"""PixelCNN: what a value may hang on, the mass of a whole small world, its likelihood value by value, and samples."""

import itertools
import math

import pytest
import torch

from igpt.data import rng_of
from igpt.families import PixelCNN
from igpt.system import UserError
from igpt.testing import check_source


def network(**options):
    torch.manual_seed(0)
    module = PixelCNN(**({"resolution": 4, "width": 12, "depth": 3, "levels": 4} | options)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def images(count, side=4):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_value_hangs_on_those_before_it_alone_and_with_kernels_above_1_on_all_of_those_in_reach(kernel):
    module, values = network(kernel=kernel, depth=6), torch.randint(0, 4, (1, 3, 4, 4), generator=rng_of(1))
    before = module.logits(values)
    places = [(row, column, channel) for row in range(4) for column in range(4) for channel in range(3)]
    for number, (row, column, channel) in enumerate(places):
        changed = values.clone()
        changed[0, channel, row, column] = (values[0, channel, row, column] + 2) % 4
        moved = (module.logits(changed) - before).abs().amax(1)[0]
        moves = [bool(moved[c, r, k] > 1e-6) for r, k, c in places]
        assert not any(moves[: number + 1]), (row, column, channel)
        if kernel > 1:
            assert all(moves[number + 1 :]), (row, column, channel)  # no blind spot


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [([1, 2], 2), ([2, 1], 2), ([2, 2], 2), ([1, 1], 8)])
def test_the_masses_of_all_images_of_a_small_world_sum_to_1(shape, levels):
    module = network(resolution=shape, levels=levels, width=6, depth=2)
    size, step = 3 * math.prod(shape), 256 // levels
    world = torch.tensor(list(itertools.product(range(levels), repeat=size)), dtype=torch.uint8) * step
    nats = module.log_likelihood(world.view(-1, 3, *shape)).double() + size * math.log(step)
    assert float(nats.logsumexp(0)) == pytest.approx(0, abs=1e-4)
    assert float(nats.max() - nats.min()) > 1  # not all alike


@torch.no_grad()
def test_the_likelihood_is_the_product_of_each_values_share_and_of_a_bytes_among_its_level():
    module, given = network(), images(2)
    expected = torch.zeros(2)
    for row, column, channel in itertools.product(range(4), range(4), range(3)):
        shares = module.logits(given.long() // 64)[:, :, channel, row, column].softmax(1)
        expected += (shares[torch.arange(2), given[:, channel, row, column].long() // 64] / 64).log()
    torch.testing.assert_close(module.log_likelihood(given), expected, rtol=1e-5, atol=1e-3)
    found = module.losses(given, rng_of(0))
    assert float(found["loss"]) == pytest.approx(-float(expected.mean()) / 16, rel=1e-5)
    assert float(found["bits_per_dim"]) == pytest.approx(float(found["loss"]) / 3 / math.log(2), rel=1e-6)


@torch.no_grad()
def test_samples_occur_as_often_as_their_mass_says():
    module = network(resolution=[1, 2], levels=2, width=6, depth=2)
    drawn = (module.sample(4000, seed=3) >= 128).long().flatten(1)
    codes = (drawn * 2 ** torch.arange(6)).sum(1)
    shares = torch.bincount(codes, minlength=64) / len(codes)
    world = torch.tensor([[number >> bit & 1 for bit in range(6)] for number in range(64)], dtype=torch.uint8) * 128
    masses = (module.log_likelihood(world.view(-1, 3, 1, 2)) + 6 * math.log(128)).exp()
    error = (masses * (1 - masses) / len(codes)).sqrt() + 1e-4
    assert ((shares - masses).abs() < 4.5 * error).all()


def test_it_keeps_the_contract_of_a_source():
    check_source(lambda: network(levels=256))


@pytest.mark.parametrize(
    "options", [{"width": 10}, {"width": 0}, {"depth": 0}, {"kernel": 2}, {"levels": 3}, {"levels": 1}]
)
def test_numbers_that_describe_no_network_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        PixelCNN(**({"resolution": 8} | options))
