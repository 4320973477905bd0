"""Patterns, biases and hashing on a GPU give what they give on the CPU, though another kernel computes them."""

import itertools

import pytest
import torch

from igpt.model import PixelTransformer, SamplingOptions, TransformerConfig, next_pixel_loss, sample
from tests.gpu.networks import CPU, distance

SHAPES = {
    **{name: {"attention": [{"pattern": name}]} for name in ("rows", "window", "axial", "strided", "fixed", "lsh")},
    "by head": {"attention": [[{"pattern": "window", "k": 2}, {"pattern": "strided", "part": "column"}], "dense"]},
    "bias": {"positions": "bias", "attention": ["rows"]},
    "shared bias": {"positions": "shared_bias"},
    "rope": {"positions": "rope", "attention": ["window"]},
}


def network(name):
    torch.manual_seed(0)
    model = PixelTransformer(TransformerConfig(2, 64, 4, 256, 17, **SHAPES[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients_are_those_of_the_cpu(device, name):
    tokens = torch.randint(17, (2, 256), generator=torch.Generator().manual_seed(1))
    found = {}
    for place in (device, CPU):
        model = network(name).to(place)
        loss = next_pixel_loss(model(tokens.to(place), causal=True), tokens.to(place))
        loss.backward()
        found[place] = loss.item(), [parameter.grad.cpu() for parameter in model.parameters()]
    (loss, gradients), (expected, wanted) = found[device], found[CPU]
    assert loss == pytest.approx(expected, rel=1e-4)
    assert max(itertools.starmap(distance, zip(gradients, wanted, strict=True))) < 1e-2


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_samples_are_those_without_a_cache(device, name):
    model, length = network(name).to(device), 40
    tokens = sample(model, torch.zeros(2, 0, dtype=torch.int64, device=device), options=SamplingOptions(top_k=1))
    with torch.no_grad():
        likeliest = model(tokens, causal=True).argmax(-1)
    assert (likeliest == tokens)[:, :length].float().mean() > 0.99
