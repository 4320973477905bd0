"""Pictures as small thumbnails: what they are compared by, and the distance of two once they are aligned."""

from collections.abc import Sequence
from functools import cache
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.families import FeatureSource

SIDE, COARSE = 16, 8  # pixels of a thumbnail, and of what candidates are found by
CHROMA = 0.4  # weight of colour differences beside brightness: recompression moves colours most
NOISE = 1.0  # squared levels that rounding and recompression add to a picture without edges
ZOOMS = (0.95, 0.975)  # sides of the parts that are laid over the whole other picture
COARSELY = 2.5  # as the threshold, of coarse pictures that are not aligned: beyond this no alignment helps
AT_ONCE = 128  # pairs that are aligned together; 7 MB of parts for each side
YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


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
    weights = torch.tensor([1.0, CHROMA, CHROMA])
    return torch.einsum("ij,bjhw->bihw", YCC * weights[:, None], thumbs.float())


def coarse(thumbs: Tensor) -> Tensor:
    """What candidates are found by: thumbnails uint8 to float `(B, 192)`."""
    return F.avg_pool2d(weighted(thumbs), SIDE // COARSE).flatten(1)


def differences(first: Tensor, second: Tensor) -> Tensor:
    """How much of each pair of thumbnails, uint8 `(B, 3, 16, 16)`, is not the same picture, `(B,)`; 0 for equal ones.

    The mean squared residual at the best of several alignments (either picture may be a crop, of 5 % less, of the
    other) over the smaller squared slope of the two: what is left of a copy that was scaled or moved by a part of a
    pixel grows with its slopes, while smooth pictures must agree to a few levels. Unrelated pictures are at about 3 or
    more.
    """
    one, other = weighted(first), weighted(second)
    allowed = torch.minimum(slope(one), slope(other)) + NOISE
    best = residual(one, other)
    far = residual(F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)) > COARSELY * allowed
    near_ones = (~far).nonzero()[:, 0]
    for near in near_ones.split(AT_ONCE) if len(near_ones) else ():
        a, b = one[near], other[near]
        best[near] = torch.stack([best[near], aligned(a, b), aligned(b, a)]).amin(0)
    return best / allowed


def aligned(whole: Tensor, part: Tensor) -> Tensor:
    """The least residual of each picture `part` and a part of `whole`, both `(B, 3, S, S)`; `(B,)`."""
    different, which = torch.unique_consecutive(whole, dim=0, return_inverse=True)  # one against all its candidates
    parts = (different.flatten(2) @ windows()).view(len(different), 3, -1, SIDE * SIDE)
    least: Tensor = (parts[which] - part.flatten(2)[:, :, None]).square_().mean((1, 3)).amin(1)
    return least


@cache
def windows() -> Tensor:
    """The parts that are compared, each brought to the size of the whole, as one linear map `(S * S, K * S * S)`."""
    points = torch.eye(SIDE * SIDE).view(-1, 1, SIDE, SIDE)
    shifts = [(zoom, right, down) for zoom in ZOOMS for right, down in product((zoom - 1, 0.0, 1 - zoom), repeat=2)]
    return torch.cat([zoomed(points, *one).flatten(1) for one in shifts], dim=1)


def zoomed(pictures: Tensor, zoom: float, right: float, down: float) -> Tensor:
    """A part of each picture `(B, C, S, S)`, brought to the size of the whole.

    Args:
        zoom: side of the part, as a share.
        right: shift of its middle, in halves of a side.
        down: the same.
    """
    turn = torch.tensor([[zoom, 0.0, right], [0.0, zoom, down]]).expand(len(pictures), 2, 3)
    where = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, where, padding_mode="border", align_corners=False)


def residual(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of each pair, `(B,)`."""
    return (one - other).square().flatten(1).mean(1)


def slope(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, across and down, `(B,)`."""
    across, down = pictures.diff(dim=3), pictures.diff(dim=2)
    return (across.square().flatten(1).mean(1) + down.square().flatten(1).mean(1)) / 2
