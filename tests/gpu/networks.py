"""Networks, and what one training step makes of them on a device."""

import copy
from contextlib import nullcontext

import torch

from igpt.data import rng_of
from igpt.modules import BERT, Autoregressive
from tests.conftest import REPO

KINDS = [Autoregressive, BERT]
COLORS, SIDE = 17, 8
CPU = torch.device("cpu")


def network(kind, **options):
    """A small one whose every parameter is random and large enough to matter, on the CPU."""
    torch.manual_seed(0)
    shape = {"n_layers": 3, "d_model": 64, "n_heads": 4, "n_positions": SIDE**2, "vocab_size": COLORS}
    module = kind({**shape, "sos": kind is Autoregressive}, palette=str(REPO / "palettes" / "digits.npy"), **options)
    with torch.no_grad():
        for name, parameter in module.transformer.named_parameters():
            parameter.normal_(std=0.15).add_(1.0 if "ln_" in name else 0.0)
    return module.eval()


def on(device, module):
    """A copy on the device."""
    return copy.deepcopy(module).to(device)


def images(count=4):
    """Noise, uint8 `(count, 3, R, R)`."""
    return torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def tokens(count=4):
    """Noise, int64 `(count, T)`."""
    return torch.randint(COLORS, (count, SIDE**2), generator=torch.Generator().manual_seed(2))


def autocast(device, dtype):
    """Mixed precision of a type, or float32 where it is None."""
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def training_step(module, device, dtype=None):
    """Loss and gradients by name, on the CPU, of one batch."""
    with autocast(device, dtype):
        loss = module.loss(module.encode(images().to(device)), rng_of(3))
    loss.backward()
    return loss.item(), {name: one.grad.cpu() for name, one in module.named_parameters()}


def distance(found, expected):
    """Length of the difference, in lengths of `expected`."""
    return ((found.double().cpu() - expected.double()).norm() / expected.double().norm()).item()
