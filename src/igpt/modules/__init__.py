"""The LightningModules: one per way of training, all on `PixelModule`."""

from igpt.modules.autoregressive import Autoregressive
from igpt.modules.base import EVALUATE, FEATURES, Batch, PixelModule, recipe_of, step_of
from igpt.modules.bert import BERT
from igpt.modules.byte_autoregressive import ByteAutoregressive
from igpt.modules.coarse_to_fine import CoarseToFine
from igpt.modules.core import PixelModel
from igpt.modules.generative import GenerativeModule, colors_of
from igpt.modules.joint import Joint
from igpt.modules.loading import Loaded, check_room, class_names_of, load

__all__ = [
    "BERT", "EVALUATE", "FEATURES", "Autoregressive", "Batch", "ByteAutoregressive", "CoarseToFine", "GenerativeModule",
    "Joint", "Loaded", "PixelModel", "PixelModule", "check_room", "class_names_of", "colors_of", "load", "recipe_of",
    "step_of",
]  # fmt: skip
