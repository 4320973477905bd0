"""The LightningModules: one per way of training, all on `PixelModule`."""

from igpt.modules.autoregressive import Autoregressive
from igpt.modules.base import PixelModule

__all__ = ["Autoregressive", "PixelModule"]
