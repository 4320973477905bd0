"""The norm of few passes and the products with a factor: PyTorch's numbers and exact gradients."""

import pytest
import torch
from torch.nn import functional as F

from igpt.model.kernels import Linear, rms_norm
from igpt.model.transformer import NORM_EPS, Block, TransformerConfig


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def gradients_of(y, inputs):
    return torch.autograd.grad(y.sin().sum(), inputs)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 4, 5)])
def test_the_norm_has_exact_gradients(shape):
    x, weight = draw(*shape, dtype=torch.float64), draw(5, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 0.1), (x, weight))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_norm_is_pytorchs_to_rounding(scale):
    x, weight = draw(70, 96), draw(96, seed=1)
    large = (x * scale).detach().requires_grad_()
    found, expected = rms_norm(large, weight, NORM_EPS), F.rms_norm(large, (96,), weight, NORM_EPS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for one, other in zip(gradients_of(found, (large, weight)), gradients_of(expected, (large, weight)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * other.abs().max().item(), rtol=1e-5)


def test_the_norm_of_zeros_is_zero_with_a_finite_gradient():
    x, weight = torch.zeros(2, 5, requires_grad=True), draw(5)
    found = rms_norm(x, weight, NORM_EPS)
    assert (found == 0).all()
    assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


def test_the_norm_of_a_frozen_gain_or_input_gives_the_other_gradient():
    x, weight = draw(3, 5), draw(5, seed=1)
    both = gradients_of(rms_norm(x, weight, NORM_EPS), (x, weight))
    (alone,) = gradients_of(rms_norm(x, weight.detach(), NORM_EPS), (x,))
    (gain,) = gradients_of(rms_norm(x.detach(), weight, NORM_EPS), (weight,))
    torch.testing.assert_close((alone, gain), both)


def test_a_gradient_that_is_no_block_of_memory_is_taken():
    x, weight, grad = draw(4, 3, 5), draw(5, seed=1), draw(3, 4, 5, seed=2).detach().transpose(0, 1)
    found = torch.autograd.grad(rms_norm(x, weight, NORM_EPS), (x, weight), grad)
    expected = torch.autograd.grad(F.rms_norm(x, (5,), weight, NORM_EPS), (x, weight), grad)
    torch.testing.assert_close(found, expected)


def test_a_product_with_a_factor_is_that_of_the_product_times_the_factor():
    x, linear = draw(2, 4, 5), Linear(5, 6, scale=1.7)
    found, expected = linear(x), 1.7 * F.linear(x, linear.weight)
    torch.testing.assert_close(found, expected)
    inputs = (x, linear.weight)
    torch.testing.assert_close(gradients_of(found, inputs), gradients_of(expected, inputs))


def test_autocast_computes_a_product_with_a_factor_in_its_own_type():
    x, linear = draw(4, 5), Linear(5, 6, scale=1.7)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), 1.7 * F.linear(x, linear.weight), atol=0.03, rtol=0.03)
    for gradient in gradients_of(found, (x, linear.weight)):
        assert gradient.dtype == torch.float32


def block_and_input():
    torch.manual_seed(0)
    return Block(TransformerConfig(2, 24, 3, 20, 7)), draw(2, 20, 24)


@pytest.mark.parametrize("dtype", [None, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])  # compiled once more
def test_a_compiled_block_is_one_graph_with_the_same_gradients(dtype):
    block, h = block_and_input()
    compiled = torch.compile(block, fullgraph=True)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        plain, fast = block(h, True), compiled(h, True)
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype is None else {"atol": 0.02, "rtol": 0.02}
    inputs = [h, *block.parameters()]
    for one, other in zip(gradients_of(fast, inputs), gradients_of(plain, inputs), strict=True):
        largest = other.abs().max()
        torch.testing.assert_close(one / largest, other / largest, **close)


def test_the_gradients_of_a_block_are_those_of_its_formula():
    block, h = block_and_input()

    def formula(h):
        n = F.rms_norm(h, (24,), block.ln_1.weight, NORM_EPS)
        q, k, v = (n @ block.attn.qkv.weight.T).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        shares = (q @ k.mT / 8**0.5).masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf).softmax(-1)
        a = h + (shares @ v).transpose(1, 2).flatten(2) @ block.attn.proj.weight.T
        hidden = F.rms_norm(a, (24,), block.ln_2.weight, NORM_EPS) @ block.mlp.fc.weight.T
        return a + (hidden * torch.sigmoid(1.702 * hidden)) @ block.mlp.proj.weight.T

    inputs = [h, *block.parameters()]
    found, expected = block(h, True), formula(h)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for one, other in zip(gradients_of(found, inputs), gradients_of(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * other.abs().max().item(), rtol=1e-4)
