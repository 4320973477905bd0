"""Packed weights: the same products, where packing pays."""

import pytest
import torch

from igpt.model import kernels
from igpt.model.kernels import Packed, add_product_, pack, product
from igpt.model.token_step import weights_of
from tests.conftest import randomised

with_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.mark.parametrize("packed", [pytest.param(True, marks=with_onednn), False])
@pytest.mark.parametrize("scale", [1.0, 1.702])
def test_a_product_is_the_same_with_packed_weights(packed, scale):
    x, weight, h = torch.randn(5, 24), torch.randn(40, 24), torch.randn(5, 40)
    expected = scale * (x.double() @ weight.double().t())
    (used,) = pack([weight], 5 if packed else 1)
    assert isinstance(used, Packed) == packed
    torch.testing.assert_close(product(x, used, scale).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(add_product_(h.clone(), x, used, scale).double(), h + expected, atol=1e-5, rtol=1e-5)


@with_onednn
def test_packed_weights_serve_any_number_of_rows():
    weight = torch.randn(40, 24)
    (packed,) = pack([weight], 3)
    for rows in (1, 2, 300):
        x = torch.randn(rows, 24)
        torch.testing.assert_close(product(x, packed), x @ weight.t(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_than_float32_are_left_alone(dtype):
    weight = torch.randn(4, 4, dtype=dtype)
    assert pack([weight], 8)[0] is weight


def test_more_weights_than_memory_should_hold_twice_are_left_alone(monkeypatch):
    weights = [torch.randn(4, 4), torch.randn(4, 4)]
    monkeypatch.setattr(kernels, "MOST_BYTES", 127)
    assert pack(weights, 8) == weights


def test_the_matrices_of_a_model_are_in_the_order_of_its_blocks(tiny):
    model = randomised(tiny)
    weights = weights_of(model, 1)
    assert len(weights.blocks) == tiny.n_layers
    for block, found in zip(model.blocks, weights.blocks, strict=True):
        expected = (block.attn.qkv, block.attn.proj, block.mlp.fc, block.mlp.proj)
        assert all(a is b.weight for a, b in zip(found, expected, strict=True))
    assert weights.head is model.head.weight
