"""The VAE: a normalised distribution over bytes, a bound below its likelihood, and what its features are."""

import math

import pytest
import torch
from torch.nn import functional as F

from igpt.data import rng_of
from igpt.families import VAE, open_source
from igpt.system import UserError
from igpt.testing import check_source

SMALL = {"resolution": 2, "width": 4, "depth": 2, "latent": 1}


def vae(**options):
    """A network whose weights are large enough for images and latents to matter to each other."""
    torch.manual_seed(0)
    module = VAE(**(SMALL | options)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def smooth():
    """One whose posterior is wider than the prior, so that no draw of it weighs without bound."""
    module = vae()
    with torch.no_grad():
        module.log_scale.fill_(0.0)
        module.posterior.weight[1].zero_()  # of the logarithm of its one deviation
        module.posterior.bias[1] = math.log(1.3)
    return module


def images(count, side=2):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


@torch.no_grad()
def known_likelihood(module, given):
    """Of a latent of one number: ln p(x) by the trapezoidal rule over it, in float64."""
    grid = torch.linspace(-9, 9, 1001)
    log_prior = -0.5 * grid.double().square() - 0.5 * math.log(2 * math.pi)
    log_p = [module.log_p(image[None].expand(len(grid), -1, -1, -1), grid[:, None]).double() for image in given]
    return torch.stack([(one + log_prior).logsumexp(0) + math.log(float(grid[1] - grid[0])) for one in log_p])


@torch.no_grad()
def elbo(module, given, draws):
    rng = rng_of(1)
    found = [module.bound(given, rng) for _ in range(draws)]
    return torch.stack([nats - divergence.sum(1) for nats, divergence in found]).double().mean(0)


def test_the_masses_of_all_bytes_of_a_channel_sum_to_one():
    module = vae().double()
    given = images(1).expand(256, -1, -1, -1).clone()
    given[:, 1, 0, 1] = torch.arange(256)
    latents = torch.full((256, 1), 0.3, dtype=torch.float64)
    with torch.no_grad():
        others = given.clone()
        others[:, 1, 0, 1] = 0
        one = mass_by_sigmoids(module, given, latents)
        found = (module.log_p(given, latents) - module.log_p(others, latents)).exp() * one[0]
    torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-7)
    assert float(one.sum()) == pytest.approx(1, abs=1e-9)


def mass_by_sigmoids(module, given, latents):
    """Of the byte at channel 1, row 0, column 1: the difference of a logistic's cumulative distribution."""
    centre, scale = module.decode(latents)[:, 1, 0, 1], module.log_scale[1].exp()
    value = given[:, 1, 0, 1].double()
    above = torch.sigmoid(((value + 0.5) / 127.5 - 1 - centre) / scale)
    below = torch.sigmoid(((value - 0.5) / 127.5 - 1 - centre) / scale)
    return (torch.where(value == 255, 1.0, above) - torch.where(value == 0, 0.0, below)).flatten()


def test_the_elbo_is_at_most_the_likelihood_and_importance_sampling_arrives_at_it():
    module, given = smooth(), images(4)
    exact = known_likelihood(module, given)
    sampled = torch.stack([module.log_likelihood(given, 100, seed).double() for seed in range(30)])
    assert (elbo(module, given, 300) < exact).all()
    assert (elbo(module, given, 300) < sampled.mean(0)).all()
    ratio = (sampled - exact).exp()  # of estimate and probability: 1 in the mean, without bias
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert (error < 0.05).all()
    assert ((ratio.mean(0) - 1).abs() < 3 * error).all()


def test_more_draws_bring_the_bound_nearer_to_the_likelihood():
    module, given = smooth(), images(4)
    exact = float(known_likelihood(module, given).sum())

    def mean(draws):
        return sum(float(module.log_likelihood(given, draws, seed).double().sum()) for seed in range(400)) / 400

    assert mean(1) < mean(2) < mean(4) < exact  # by five standard errors of these means and more


@torch.no_grad()
def test_what_is_logged_are_the_loss_and_the_elbo_in_bits_per_dimension():
    module, given = vae(beta=3.0), images(6)
    found = module.losses(given, rng_of(2))
    nats, divergence = module.bound(given, rng_of(2))
    assert float(found["loss"]) == pytest.approx(float(-nats.mean() + 3 * divergence.sum(1).mean()) / 4, rel=1e-5)
    expected = float(-nats.mean() + divergence.sum(1).mean()) / (12 * math.log(2))
    assert float(found["bits_per_dim"]) == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_that_of_two_normal_distributions():
    module, given = vae(latent=5), images(3)
    _, mean, log_deviation = module.encode(given)
    posterior = torch.distributions.Normal(mean, log_deviation.exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(module.bound(given, rng_of(0))[1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_latents_below_the_free_bits_cost_the_same():
    module, given = vae(latent=3, free_bits=1e6), images(4)
    found = module.losses(given, rng_of(0))
    assert float(found["loss"]) == pytest.approx(float(found["reconstruction"]) + 3 * 1e6 / 4, rel=1e-6)
    assert float(found["divergence"]) < 1e3  # what is logged is the divergence itself


def test_features_are_the_means_of_the_maps_of_each_convolution_and_the_posteriors_mean():
    module, given = vae(resolution=8, width=4, depth=3, latent=6), images(3, side=8)
    maps, expected = given.float() / 127.5 - 1, []
    with torch.no_grad():
        for number, part in enumerate(module.encoder):
            maps = F.silu(F.conv2d(maps, part.weight, part.bias, stride=1 if number == 0 else 2, padding=1))
            expected.append(maps.mean((2, 3)))
        found = module.features(given, module.layers)
    assert module.layers == ("conv0", "conv1", "conv2", "mean")
    assert [part.shape[1] for part in found] == [4, 8, 16, 6]
    for one, other in zip(found, expected, strict=False):
        torch.testing.assert_close(one, other)


def test_samples_have_the_distribution_that_the_likelihood_says():
    module = vae(resolution=1, depth=1)
    with torch.no_grad():
        module.log_scale.fill_(-1.0)
    drawn = module.sample(6000, seed=3)[:, 0, 0, 0].double()
    every = torch.zeros(256, 3, 1, 1, dtype=torch.uint8)
    every[:, 0, 0, 0] = torch.arange(256)
    grid = torch.linspace(-6, 6, 241)
    centre = module.decode(grid[:, None])[:, 0, 0, 0].double().detach()
    value = torch.arange(256)[:, None].double()
    scale = math.exp(-1.0)
    above = torch.where(value == 255, 1.0, torch.sigmoid(((value + 0.5) / 127.5 - 1 - centre) / scale))
    below = torch.where(value == 0, 0.0, torch.sigmoid(((value - 0.5) / 127.5 - 1 - centre) / scale))
    prior = torch.exp(-0.5 * grid.double().square())
    mass = ((above - below) * prior).sum(1) / prior.sum()
    mean, deviation = float((mass * value[:, 0]).sum()), float(drawn.std())
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(len(drawn)))


def test_it_keeps_the_contract_of_a_source():
    check_source(lambda: vae(resolution=[4, 8], width=4, depth=2, latent=3))


@pytest.mark.parametrize(
    "options", [{"resolution": 6, "depth": 3}, {"depth": 0}, {"latent": 0}, {"width": 0}, {"beta": -1.0},
                {"free_bits": math.nan}, {"learning_rate": -1.0}],
)  # fmt: skip
def test_numbers_that_describe_no_network_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        VAE(**({"resolution": 8} | options))


def test_a_checkpoint_from_the_trainer_is_a_source_with_its_weights(vae_run):
    source = open_source(str(vae_run))
    assert isinstance(source, VAE)
    state = torch.load(vae_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in source.state_dict().items())
