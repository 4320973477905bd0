"""Pictures as small thumbnails, and what is looked at of them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.families import FeatureSource

SIDE, COARSE = 16, 8  # pixels of a thumbnail, and of what candidates are found by
CHROMA = 0.4  # weight of colour differences beside brightness: recompression moves colours most
YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
WEIGHTED = YCC * torch.tensor([[1.0], [CHROMA], [CHROMA]])


class Downsampled(FeatureSource):
    """Pixels averaged down to a few, as a source of one layer: what curation takes if no other source is given.

    Args:
        side: S of the small picture; features are `3 * S * S` numbers from -1 to 1.
    """

    layers = ("pixels",)

    def __init__(self, side: int = COARSE) -> None:
        super().__init__()
        self.side = side

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `FeatureSource`."""
        small = F.adaptive_avg_pool2d(images.float(), self.side).flatten(1) / 127.5 - 1
        return [small for _ in layers]


def thumbnails(images: Tensor) -> Tensor:
    """Images uint8 `(B, 3, H, W)` as uint8 `(B, 3, 16, 16)`."""
    return F.adaptive_avg_pool2d(images.float(), SIDE).round().to(torch.uint8)


def weighted(thumbs: Tensor) -> Tensor:
    """Brightness and two colour differences, these at less weight, float `(B, 3, 16, 16)`, in levels of 0 to 255."""
    return torch.einsum("ij,bjhw->bihw", WEIGHTED, thumbs.float())


def coarse(thumbs: Tensor) -> Tensor:
    """What candidates are found by: thumbnails uint8 to float `(B, 192)`."""
    return F.avg_pool2d(weighted(thumbs), SIDE // COARSE).flatten(1)
