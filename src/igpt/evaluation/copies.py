"""Near-copies: samples that are nearer to a training image than 95 % of held-out images are."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARE = 0.05  # of the held-out images that may be nearer
CONFIDENT = 1.645  # deviations of a binomial count, for 95 %
SAME = 1e-3  # of the median held-out distance: below it two pictures are the same but for rounding


@dataclass(frozen=True)
class CopyRule:
    """A sample is a near-copy where its distance to the nearest training image is below `threshold`, or is none.

    Args:
        threshold: of held-out images, also of others than it was made of, at most 5 % are below it.
        same: distance that counts as none.
    """

    threshold: float
    same: float

    def flagged(self, distances: Tensor) -> Tensor:
        """Which of the samples `(N,)` are near-copies, bool `(N,)`."""
        return (distances < self.threshold) | (distances <= self.same)


def copy_rule(held_out: Tensor) -> CopyRule:
    """The rule from the distances `(N,)` of held-out images to their nearest training images.

    The threshold is a tolerance limit: with a confidence of 95 %, at most 5 % of other held-out images are below it. A
    quantile of these images themselves would be exceeded by others half of the time.
    """
    ordered, count = held_out.double().sort().values, len(held_out)
    below = SHARE * count - CONFIDENT * (SHARE * (1 - SHARE) * count) ** 0.5
    return CopyRule(float(ordered[max(0, int(below))]), SAME * float(torch.median(ordered)))
