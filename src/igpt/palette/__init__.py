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
from igpt.palette.vq import GRID, VQShape, VQTokens, blank_tokens, open_tokens, pixels_of, stride_of
from igpt.palette.vq_training import VQQuality, VQRecipe, fit_vq, quantizer_of

__all__ = [
    "GRID", "CellColors", "ColorCounts", "Palette", "VQQuality", "VQRecipe", "VQShape", "VQTokens", "blank_tokens",
    "cell_sizes", "cells_of", "check_colors", "faiss_behind_torch",
    "fit_palette", "fit_vq", "group_colors",
    "open_tokens", "palette_quality", "pixels_of", "quantizer_of", "sha256_of_colors", "stride_of",
]  # fmt: skip
