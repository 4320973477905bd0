"""How good samples are: distances of sets of features, copies of training images, and what to compare a figure with."""

from igpt.evaluation.controls import blurred, noise, noisy, shuffled
from igpt.evaluation.copies import CopyRule, copy_rule
from igpt.evaluation.distances import KernelDistance, frechet_distance, kernel_distance, polynomial_mmd
from igpt.evaluation.features import Space, open_space, read_pictures
from igpt.evaluation.judging import Figures, Judge, table
from igpt.evaluation.neighbours import Neighbourhoods, nearest, neighbourhoods

__all__ = [
    "CopyRule", "Figures", "Judge", "KernelDistance", "Neighbourhoods", "Space", "blurred", "copy_rule",
    "frechet_distance", "kernel_distance", "nearest", "neighbourhoods", "noise", "noisy", "open_space",
    "polynomial_mmd", "read_pictures", "shuffled", "table",
]  # fmt: skip
