"""The colour palette: fitting, encoding pixels as tokens, decoding tokens."""

from igpt.palette.cells import CellColors, cell_sizes, cells_of
from igpt.palette.counting import ColorCounts
from igpt.palette.kmeans import faiss_behind_torch
from igpt.palette.palette import (
    Palette,
    check_colors,
    fit_palette,
    group_colors,
    palette_quality,
    sha256_of_colors,
)

__all__ = [
    "CellColors", "ColorCounts", "Palette", "cell_sizes", "cells_of", "check_colors", "faiss_behind_torch",
    "fit_palette", "group_colors", "palette_quality", "sha256_of_colors",
]  # fmt: skip
