"""The flow: its inverse, its determinant against autograd's, its mass against quadrature, and its samples."""

import math

import pytest
import torch

from igpt.data import rng_of
from igpt.families import Flow
from igpt.families.models.flow import EDGE
from igpt.system import UserError
from igpt.testing import check_source


def flow(**options):
    """A network whose every weight is random, so that no coupling is the identity that it begins as."""
    torch.manual_seed(0)
    module = Flow(**({"resolution": 4, "scales": 2, "couplings": 3, "hidden": 5} | options)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def images(count, rows=4, columns=4):
    return torch.randint(0, 256, (count, 3, rows, columns), generator=rng_of(5), dtype=torch.uint8)


@torch.no_grad()
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("shape", "scales"), [((2, 2), 1), ((4, 8), 2), ((8, 8), 3)])
def test_the_inverse_leads_back(shape, scales, additive):
    module = flow(resolution=list(shape), scales=scales, additive=additive)
    x = torch.randn(5, 3, *shape, generator=rng_of(1)) * 3
    parts, _, _ = module.transform(x)
    assert sum(part[0].numel() for part in parts) == x[0].numel()
    assert not torch.allclose(torch.cat([part.flatten(1) for part in parts], 1), x.flatten(1), atol=0.1)
    torch.testing.assert_close(module.inverse(parts), x, rtol=0, atol=1e-4)


def flat(module, shape):
    """From a vector to the latent's vector."""
    return lambda vector: torch.cat([part.flatten() for part in module.transform(vector.view(1, 3, *shape))[0]])


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("shape", "scales"), [((2, 2), 1), ((4, 4), 2)])
def test_the_log_determinant_is_that_of_autograds_jacobian(shape, scales, additive):
    module = flow(resolution=list(shape), scales=scales, additive=additive).double()
    x = torch.randn(1, 3, *shape, dtype=torch.float64, generator=rng_of(1))
    jacobian = torch.autograd.functional.jacobian(flat(module, shape), x.flatten())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    found = module.transform(x)[1]
    assert abs(float(expected)) > 0.01 or additive
    assert float(found.detach()) == pytest.approx(float(expected), abs=1e-9)


@torch.no_grad()
def test_the_density_of_bytes_is_that_of_the_latent_times_the_determinant_of_the_whole_way():
    module, given = flow(resolution=2, scales=1), images(1, 2, 2)
    precise = flow(resolution=2, scales=1).double()
    place = given.double().flatten() + 0.5

    def whole(byte):
        share = EDGE + (1 - 2 * EDGE) * byte / 256
        return flat(precise, (2, 2))(torch.log(share) - torch.log(1 - share))

    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(whole, place)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(whole(place)).sum()
    expected = float(normal + torch.linalg.slogdet(jacobian).logabsdet)
    found, _ = module.log_density(given, torch.full((), 0.5))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_the_loss_is_at_least_that_of_the_bytes_and_more_draws_bring_it_nearer():
    module, given = flow(), images(3)

    def mean(draws):
        return sum(float(module.log_likelihood(given, draws, seed).sum()) for seed in range(10)) / 10

    one, some, many = mean(1), mean(8), mean(32)
    assert one < some < many
    rng = rng_of(4)
    losses = [float(module.losses(given, rng)["loss"]) for _ in range(30)]
    assert sum(losses) / 30 == pytest.approx(-one / len(given) / 16, abs=0.01)
    found = module.losses(given, rng_of(4))
    assert float(found["bits_per_dim"]) == pytest.approx(losses[0] / 3 / math.log(2), rel=1e-5)


@torch.no_grad()
def test_the_share_of_samples_of_a_colour_is_the_mass_that_the_density_gives_it():
    module = flow(resolution=2, scales=1, couplings=1, hidden=2)
    for coupling in module.blocks[0]:
        for parameter in coupling.parameters():
            parameter.zero_()  # the identity: each byte is the logistic-normal that the squashing makes of a normal
    drawn = module.sample(3000, seed=2).double().flatten()
    edges = (torch.tensor([64.0, 128.0, 192.0]) / 256 * (1 - 2 * EDGE) + EDGE).double()
    expected = torch.distributions.Normal(0.0, 1.0).cdf(torch.logit(edges).float())
    found = torch.tensor([float((drawn < edge).double().mean()) for edge in (64, 128, 192)])
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * 0.5 / math.sqrt(len(drawn)))


@torch.no_grad()
def test_features_are_means_of_what_each_coupling_gives_and_the_last_are_of_the_latent():
    module, given = flow(), images(2)
    found = module.features(given, module.layers)
    assert module.layers == ("scale0.0", "scale0.1", "scale0.2", "scale1.0", "scale1.1", "scale1.2")
    assert [part.shape[1] for part in found] == [12, 12, 12, 24, 24, 24]
    share = EDGE + (1 - 2 * EDGE) * (given.float() + 0.5) / 256
    parts, _, _ = module.transform(torch.logit(share))
    torch.testing.assert_close(found[-1], parts[-1].mean((2, 3)))


def test_it_keeps_the_contract_of_a_source():
    check_source(lambda: flow(resolution=[4, 8]))


@pytest.mark.parametrize("options", [{"resolution": 6}, {"scales": 0}, {"couplings": 0}, {"hidden": 0}])
def test_numbers_that_describe_no_network_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        Flow(**({"resolution": 8} | options))
