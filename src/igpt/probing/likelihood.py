"""How likely a probed network finds the test images, so that generation stands beside accuracy in one record."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from igpt.families import checked_likelihood, source_of
from igpt.model import NATS_PER_BIT
from igpt.modules import PixelModule
from igpt.probing.extract import some_of
from igpt.probing.protocol import ProbeTask
from igpt.system import Progress

MOST = 1000  # test images: their mean is good to 3 % of the deviation, at a small part of the cost of the features
AT_ONCE = 32  # images: AR's logits are as many numbers a pixel as the palette has colours


@dataclass(frozen=True)
class ImageLikelihood:
    """Mean and standard deviation over test images of -log p(x) per pixel, or per token of VQ.

    Args:
        images: how many, evenly spaced in the test split.
        exact: p is a probability; else at least the mean is known, by a lower bound of log p.
        of: what p is of: palette tokens, VQ tokens or RGB values.
        mean_nats, std_nats, mean_bits: per pixel or token.
        bits_per_dim: a third of the bits of a pixel; of RGB values alone.
        precision: of the network.
    """

    images: int
    exact: bool
    of: str
    mean_nats: float
    std_nats: float
    mean_bits: float
    bits_per_dim: float | None = None
    precision: str = "32-true"

    def to_dict(self) -> dict[str, Any]:
        """For probe.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def text(self) -> str:
        """The line that `igpt probe` prints."""
        per, most, end = "token" if self.of.startswith("VQ") else "pixel", "", "exact"
        if not self.exact:
            most, end = "at most ", "by a bound"
        rgb = self.bits_per_dim is not None
        bits = f"{self.bits_per_dim:.4f} bits per dimension" if rgb else f"{self.mean_bits:.4f} bits"
        many = f"likelihood of {self.images:,} test images"
        return f"{many}: {most}{self.mean_nats:.4f} nats per {per}, {bits} of {self.of}, {end}"


def image_likelihood(task: ProbeTask) -> ImageLikelihood | None:
    """Of up to `MOST` test images; None where the source has no likelihood, or one that is no number.

    In float32 whatever the features' precision: in bfloat16 a flow's comes out some hundredths of a nat a pixel wrong.
    """
    module, data = task.loaded.module, task.data
    source = source_of(module)
    if not source.offers("log_likelihood"):
        return None
    some, nats = some_of(data.size("test"), MOST), []
    module.to(task.compute.device).eval()
    with torch.no_grad(), Progress(len(some), "images: likelihood", quiet=True) as progress:
        for images, _ in data.loader("test", some):
            nats += [-checked_likelihood(source, part.to(module.device)) for part in images.split(AT_ONCE)]
            progress.add(len(images))
    shape, of = data.shape, "RGB values"
    if isinstance(module, PixelModule):
        shape, of = module.core.shape, module.core.predicts
    return summary(torch.cat(nats) / math.prod(shape), source.exact, of)


def summary(nats: Tensor, exact: bool, of: str) -> ImageLikelihood | None:
    """Of -log p `(N,)` in nats per pixel or token; None, with a line, where some are infinite or no numbers."""
    if not torch.isfinite(nats).all():
        print("no likelihood of test images: of some it is infinite or no number")
        return None
    mean, std = float(nats.mean()), float(nats.std(correction=0))
    bits = mean / NATS_PER_BIT
    return ImageLikelihood(len(nats), exact, of, mean, std, bits, bits / 3 if of == "RGB values" else None)
