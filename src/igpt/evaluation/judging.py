"""All figures of one set of pictures beside a reference, in one space of features."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from igpt.evaluation.copies import CopyRule, copy_rule
from igpt.evaluation.distances import frechet_distance, kernel_distance
from igpt.evaluation.neighbours import Compared, compared, radii

HEADINGS = ("images", "frechet", "kernel", "+-", "precision", "recall", "density", "coverage", "copies")


@dataclass(frozen=True)
class Figures:
    """Of one set; `copies` is the share that is flagged as near-copies of training images."""

    images: int
    frechet: float
    kernel: float
    kernel_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    copies: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Judge:
    """Judges sets of features `(M, D)` against those of training images.

    Args:
        training: features `(N, D)`.
        held_out: features `(K, D)` of images that were not trained on, which the rule about copies is made of.
        k: neighbours of precision, recall, density and coverage.
        seed: of the kernel distance's subsets.
    """

    def __init__(self, training: Tensor, held_out: Tensor, k: int = 3, seed: int = 0) -> None:
        self.training, self.held_out, self.k, self.seed = training, held_out, k, seed
        self._known: dict[int, tuple[Tensor, Compared]] = {}

    @cached_property
    def radii(self) -> Tensor:
        """Of the training images."""
        return radii(self.training, self.k)

    @cached_property
    def rule(self) -> CopyRule:
        """What counts as a near-copy."""
        return copy_rule(self.compared(self.held_out).distances)

    def compared(self, features: Tensor) -> Compared:
        """One set with the training images, distances computed once: figures, rule and picture share them."""
        if id(features) not in self._known:  # the features are kept beside, so that no other has their number
            self._known[id(features)] = features, compared(self.training, features, self.k, self.radii)
        return self._known[id(features)][1]

    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Number `(M,)` of the nearest training image of each of a set, and the distance `(M,)`."""
        found = self.compared(features)
        return found.nearest, found.distances

    def figures(self, features: Tensor) -> Figures:
        """The figures of one set."""
        kernel = kernel_distance(features, self.training, self.seed)
        found = self.compared(features)
        copies = self.rule.flagged(found.distances).double().mean()
        frechet = frechet_distance(features, self.training)
        return Figures(len(features), frechet, *kernel, *found.neighbourhoods, float(copies))


def table(found: dict[str, Figures]) -> str:
    """A line a set, aligned."""
    width = max(map(len, found))
    lines = [" ".join([" " * width, *(f"{name:>9}" for name in HEADINGS)])]
    for name, one in found.items():
        count, *numbers = one.to_dict().values()
        lines.append(" ".join([f"{name:<{width}}", f"{count:>9,}", *(f"{number:>9.4g}" for number in numbers)]))
    return "\n".join(lines)
