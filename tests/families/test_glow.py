"""Glow: its inverse, its determinant against autograd's, its norms, and the mass of bytes."""

import warnings

import pytest
import torch
from normflows.flows import GlowBlock

from igpt.data import rng_of
from igpt.families import Glow
from igpt.system import UserError
from igpt.testing import check_source
from tests.families.test_flow import flat


def glow(**options):
    """A network whose every weight is random, so that no coupling is the identity that it begins as."""
    torch.manual_seed(0)
    module = Glow(**({"resolution": 4, "scales": 2, "couplings": 2, "hidden": 5} | options)).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():  # 1x1 convolutions stay well conditioned
            parameter.add_(torch.randn_like(parameter) * (0.02 if name.endswith((".L", ".U")) else 0.1))
    return module


def images(count, side=4):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


@torch.no_grad()
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("shape", "scales"), [((2, 2), 1), ((4, 8), 2), ((8, 8), 3)])
def test_the_inverse_leads_back(shape, scales, additive):
    module = glow(resolution=list(shape), scales=scales, additive=additive)
    x = torch.randn(5, 3, *shape, generator=rng_of(1)) * 3
    parts, _, _ = module.transform(x)
    assert not torch.allclose(torch.cat([part.flatten(1) for part in parts], 1), x.flatten(1), atol=0.1)
    torch.testing.assert_close(module.inverse(parts), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("shape", "scales"), [((2, 2), 1), ((4, 4), 2)])
def test_the_log_determinant_is_that_of_autograds_jacobian(shape, scales, additive):
    module = glow(resolution=list(shape), scales=scales, additive=additive).double()
    x = torch.randn(1, 3, *shape, dtype=torch.float64, generator=rng_of(1))
    expected = torch.linalg.slogdet(torch.autograd.functional.jacobian(flat(module, shape), x.flatten())).logabsdet
    assert abs(float(expected)) > 0.01
    assert float(module.transform(x)[1].detach()) == pytest.approx(float(expected), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("additive", [False, True])
def test_a_step_is_the_block_of_normflows(additive):
    step = glow(additive=additive, couplings=1, scales=1).blocks[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = GlowBlock(12, 5, scale=not additive)
    block.load_state_dict({name.replace("parts.", "flows."): value for name, value in step.state_dict().items()})
    x = torch.randn(3, 12, 2, 2, generator=rng_of(1))
    for one, other in zip(step(x), block.inverse(x), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(step.inverse(x), block(x)[0])


@torch.no_grad()
def test_norms_begin_as_the_identity_and_are_fitted_to_one_batch_alone():
    module, given = glow(), images(40)
    before = module.log_density(given, torch.tensor(0.5))[0]
    assert torch.equal(before, module.log_density(given, torch.tensor(0.5))[0])  # a look leaves it as it is
    module.fit_norms(given)
    first = module.blocks[0][0].parts[-1]
    share = 0.05 + 0.9 * (given.float() + 0.5) / 256
    x = torch.nn.functional.pixel_unshuffle(torch.logit(share), 2).flip(1)
    seen, _ = first.inverse(x)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(12), rtol=0, atol=1e-3)
    after = module.log_density(given, torch.tensor(0.5))[0]
    module.log_density(given[:3], torch.tensor(0.5))
    assert torch.equal(after, module.log_density(given, torch.tensor(0.5))[0])


@torch.no_grad()
def test_more_draws_bring_the_likelihood_nearer_to_that_of_the_bytes():
    module, given = glow(), images(3)
    one, many = (sum(float(module.log_likelihood(given, draws, seed).sum()) for seed in range(10)) for draws in (1, 16))
    assert one < many


def test_it_keeps_the_contract_of_a_source():
    check_source(lambda: glow(resolution=[4, 8]))


@pytest.mark.parametrize("options", [{"resolution": 6}, {"scales": 0}, {"couplings": 0}, {"hidden": 0}])
def test_numbers_that_describe_no_network_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        Glow(**({"resolution": 8} | options))
