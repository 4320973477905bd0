"""Sources whose layers have positions: linear probes see the mean over them, the attentive probe sees each."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from igpt.families.contract import FeatureSource


class MapSource(FeatureSource):
    """A source that gives maps: `features` are their means over positions, and `tokens` the positions one by one."""

    @abstractmethod
    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Each of the layers, in the order asked for, of images uint8 `(B, 3, R, R)`: maps `(B, D, H, W)`, tokens
        `(B, T, D)`, or one vector `(B, D)`.
        """

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `FeatureSource`."""
        return [mean_of(part) for part in self.maps(images, layers)]

    def tokens(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `FeatureSource`."""
        return [tokens_of(part) for part in self.maps(images, layers)]


def mean_of(part: Tensor) -> Tensor:
    """Mean over positions `(B, D)`, in float32, of what `MapSource.maps` gives."""
    part = part.float()
    return part if part.ndim == 2 else part.mean((2, 3) if part.ndim == 4 else 1)


def tokens_of(part: Tensor) -> Tensor:
    """Positions `(B, T, D)` of what `MapSource.maps` gives; a vector is one position."""
    return part.flatten(2).mT if part.ndim == 4 else part.unsqueeze(1) if part.ndim == 2 else part
