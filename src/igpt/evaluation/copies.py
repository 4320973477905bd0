"""Near-copies: samples that are nearer to a training image than 95 % of held-out images are."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARE = 0.05  # of the held-out images that may be nearer
SAME = 1e-3  # of the median held-out distance: below it two pictures are the same but for rounding


@dataclass(frozen=True)
class CopyRule:
    """A sample is a near-copy where its distance to the nearest training image is below `threshold`, or is none.

    Args:
        threshold: of held-out images at most 5 % are below it.
        same: distance that counts as none.
    """

    threshold: float
    same: float

    def flagged(self, distances: Tensor) -> Tensor:
        """Which of the samples `(N,)` are near-copies, bool `(N,)`."""
        return (distances < self.threshold) | (distances <= self.same)


def copy_rule(held_out: Tensor) -> CopyRule:
    """The rule from the distances `(N,)` of held-out images to their nearest training images."""
    ordered = held_out.double().sort().values
    return CopyRule(float(ordered[int(SHARE * len(ordered))]), SAME * float(torch.median(ordered)))
