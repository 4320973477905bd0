"""The LightningModules: one per way of training, all on `PixelModule`."""

from igpt.modules.autoregressive import Autoregressive
from igpt.modules.base import PixelModule
from igpt.modules.bert import BERT
from igpt.modules.generative import GenerativeModule
from igpt.modules.joint import Joint

__all__ = ["BERT", "Autoregressive", "GenerativeModule", "Joint", "PixelModule"]
