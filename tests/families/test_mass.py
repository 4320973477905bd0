"""The masses that flows give to a world of tiny pictures, by importance sampling, against answers that are known."""

import math

import pytest
import torch

from igpt.data import rng_of
from igpt.families.models.flow import EDGE
from tests.families.test_flow import flow
from tests.families.test_glow import glow

SIDE, DRAWS, WIDER = 2, 40_000, 1.3  # the proposal's deviation, above the flow's 1 so that no weight is large
TINY = {"resolution": SIDE, "scales": 1}
NETWORKS = {
    "RealNVP": lambda: flow(**TINY),
    "NICE": lambda: flow(additive=True, **TINY),
    "Glow": lambda: glow(**TINY),
}


def weighted(module):
    """Bytes with fractions `(N, 3, 2, 2)` from a proposal of which all is known, and density over proposal `(N,)`."""
    normal = torch.distributions.Normal(0.0, WIDER)
    logits = WIDER * torch.randn(DRAWS, 3, SIDE, SIDE, dtype=torch.float64, generator=rng_of(7))
    share = logits.sigmoid()
    places = (share - EDGE) / (1 - 2 * EDGE) * 256
    slope = ((1 - 2 * EDGE) / 256 / share / (1 - share)).log()  # of the logit by the byte
    proposed = (normal.log_prob(logits) + slope).flatten(1).sum(1)
    with torch.no_grad():
        found, _ = module.log_density(places.float(), torch.zeros(()))
    return places, (found.double() - proposed).exp()


def mean_and_error(values):
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_masses_of_all_pictures_of_a_tiny_world_add_up_to_one(name):
    _, weights = weighted(NETWORKS[name]())
    total, error = mean_and_error(weights)
    assert 0 < error < 0.02
    assert abs(total - 1) < 3 * error
    assert float(weights.std()) > 0.5  # the weights are far from equal: nothing here is one of itself


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_are_as_often_bright_as_the_masses_of_bright_pictures_say(name):
    module = NETWORKS[name]()
    places, weights = weighted(module)
    drawn = module.sample(DRAWS, seed=3).double()
    for channel, row, column in ((0, 0, 0), (2, 1, 1)):
        bright = (places[:, channel, row, column] >= 160).double()
        mass, error = mean_and_error(weights * bright)
        share, other = mean_and_error((drawn[:, channel, row, column] >= 160).double())
        assert 0.05 < mass < 0.95
        assert abs(mass - share) < 3 * math.hypot(error, other)
