"""MoCo: its loss against lightly's and NumPy, its queue and its copy; and SimCLR's loss against lightly's."""

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss

from igpt.data import rng_of
from igpt.families import MoCo
from igpt.families.models.moco import info_nce
from igpt.families.models.simclr import nt_xent
from igpt.system import UserError
from igpt.testing import check_source


def images(count, side=8):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


def module(**options):
    torch.manual_seed(0)
    return MoCo(**({"resolution": 8, "width": 4, "projection": 6, "queue_size": 10} | options))


def numpy_info_nce(queries, keys, queue, temperature):
    """Equation 1 of He et al. 2020, query by query."""

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    losses = []
    for query, key in zip(queries.astype(np.float64), keys.astype(np.float64), strict=True):
        own = np.exp(cosine(query, key) / temperature)
        losses.append(-np.log(own / (own + sum(np.exp(cosine(query, one) / temperature) for one in queue))))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_the_loss_is_that_of_the_papers_equation_and_lightlys_with_a_bank(temperature):
    queries, keys = torch.randn(2, 7, 6, generator=rng_of(1))
    queue = torch.nn.functional.normalize(torch.randn(20, 6, generator=rng_of(2)), dim=1)
    found = float(info_nce(queries, keys, queue, temperature))
    assert found == pytest.approx(numpy_info_nce(queries.numpy(), keys.numpy(), queue.numpy(), temperature), rel=1e-5)
    theirs = NTXentLoss(temperature, memory_bank_size=(20, 6))
    theirs.memory_bank.bank.copy_(queue)
    assert found == pytest.approx(float(theirs(queries, keys)), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_simclrs_loss_is_lightlys(temperature):
    one, other = torch.randn(2, 9, 6, generator=rng_of(1))
    expected = float(NTXentLoss(temperature)(one, other))
    assert float(nt_xent(one, other, temperature)) == pytest.approx(expected, rel=1e-5)


def test_the_queue_keeps_the_newest_keys_in_place_of_the_oldest():
    network = module()
    first = network.queue.clone()
    keys = torch.nn.functional.normalize(torch.randn(23, 6, generator=rng_of(1)), dim=1)
    network.remember(keys[:4])
    assert torch.equal(network.queue, torch.cat([keys[:4], first[4:]]))
    network.remember(keys[4:12])
    assert torch.equal(network.queue, torch.cat([keys[10:12], keys[2:10]]))
    network.remember(keys[12:])  # more than there is room for
    assert {tuple(one) for one in network.queue.tolist()} == {tuple(one) for one in keys[13:].tolist()}


def test_the_copy_begins_as_the_network_follows_it_by_its_momentum_and_takes_no_gradient():
    network = module(momentum=0.75)
    own, slow = network.network["stem"][0].weight, network.followers[0]["stem"][0].weight
    before = slow.clone()
    assert torch.equal(own, slow)
    with torch.no_grad():
        own.add_(1)
    network.train().losses(images(5), rng_of(0))["loss"].backward()
    torch.testing.assert_close(slow, before + 0.25)
    assert own.grad is not None
    assert all(part.grad is None for part in network.followers.parameters())


def test_an_evaluation_leaves_copy_and_queue_as_they_are_and_a_training_step_does_not():
    network = module().eval()
    with torch.no_grad():
        network.head[0].weight.add_(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one = network.losses(images(5), rng_of(3))
    assert torch.equal(one["loss"], network.losses(images(5), rng_of(3))["loss"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.train().losses(images(5), rng_of(3))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"queue", "place", "followers.1.0.weight"} <= changed


def test_it_keeps_the_contract_of_a_source_and_offers_neither_likelihood_nor_samples():
    check_source(module)
    assert not module().offers("sample")
    assert not module().offers("log_likelihood")


@pytest.mark.parametrize("options", [{"width": 0}, {"queue_size": 0}, {"momentum": 1.0}, {"momentum": -0.1}])
def test_numbers_that_describe_no_training_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        module(**options)
