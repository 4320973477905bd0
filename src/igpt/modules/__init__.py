"""The LightningModules: one per way of training, all on `PixelModule`."""

from igpt.modules.autoregressive import Autoregressive
from igpt.modules.base import EVALUATE, FEATURES, TRAIN, Batch, PixelModule, RecipeModule, recipe_of, step_of
from igpt.modules.bert import BERT
from igpt.modules.byte_autoregressive import ByteAutoregressive
from igpt.modules.coarse_to_fine import CoarseToFine
from igpt.modules.core import PixelModel
from igpt.modules.generative import GenerativeModule, colors_of
from igpt.modules.joint import Joint
from igpt.modules.loading import Loaded, as_loaded, built, check_room, class_names_of, load, read_module

__all__ = [
    "BERT", "EVALUATE", "FEATURES", "TRAIN", "Autoregressive", "Batch", "ByteAutoregressive", "CoarseToFine",
    "GenerativeModule", "Joint", "Loaded", "PixelModel", "PixelModule", "RecipeModule", "as_loaded", "built",
    "check_room", "class_names_of", "colors_of", "load", "read_module", "recipe_of", "step_of",
]  # fmt: skip
