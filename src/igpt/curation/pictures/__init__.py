"""Pictures as small thumbnails, and how much of two is not the same."""

from igpt.curation.pictures.alignment import differences, reach
from igpt.curation.pictures.thumbnails import SIDE, Downsampled, coarse, thumbnails

__all__ = ["SIDE", "Downsampled", "coarse", "differences", "reach", "thumbnails"]
