"""Sources without a network of another family: igpt's own AR and BERT, and the raw pixels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.families.contract import FeatureSource
from igpt.model import SamplingOptions
from igpt.modules import PixelModule
from igpt.system import UserError

LARGEST = 16  # pixels a side of RawPixels: 768 features, of which a covariance can still be told


class PixelSource(FeatureSource):
    """Layers "0" to "L" of a trained AR or BERT, each the mean over positions of the next block's normed input.

    A likelihood is that of palette tokens, or of the bytes of a byte model; BERT has none.
    """

    exact = True

    def __init__(self, module: PixelModule) -> None:
        super().__init__()
        self.module = module.eval()
        self.layers = tuple(map(str, range(module.core.n_layers + 1)))
        self.resolution = module.core.resolution

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `FeatureSource`."""
        core = self.module.core
        return list(core.features(core.encode(images.to(core.device)), [int(layer) for layer in layers]))

    def tokens(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `FeatureSource`; a position is a pixel."""
        core, numbers = self.module.core, [int(layer) for layer in layers]
        return list(core.features(core.encode(images.to(core.device)), numbers, pooled=False))

    @torch.no_grad()
    def log_likelihood(self, images: Tensor) -> Tensor:
        """Of tokens in nats, `(B,)`, exact; a UserError for BERT."""
        core = self.module.core
        if not core.causal:
            raise UserError("BERT gives images no likelihood; use an AR checkpoint")
        return -core.surprise(core.encode(images.to(core.device))).sum(1)

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """See `FeatureSource`."""
        return self.module.core.decode(self.module.core.sample(num, SamplingOptions(seed=seed)))

    def offers(self, method: str) -> bool:
        """All but BERT's likelihood."""
        return method != "log_likelihood" or self.module.core.causal

    def spec(self) -> dict[str, Any]:
        """The module's."""
        return self.module.spec()


class RawPixels(FeatureSource):
    """The pixels themselves, from 0 to 1, of pictures shrunk to at most 16 pixels a side by means of their pixels.

    What to compare pictures by where there is no encoder: it sees colours and where they are, and no shapes.
    """

    layers = ("pixels",)

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """`(B, 3 * rows * columns)` for each of the layers."""
        rows, columns = (min(side, LARGEST) for side in images.shape[2:])
        pixels = F.adaptive_avg_pool2d(images.float() / 255, (rows, columns)).flatten(1)
        return [pixels for _ in layers]
