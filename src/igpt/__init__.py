"""igpt: generative pre-training from pixels. The public names, imported when first asked for."""

from importlib import import_module

TYPE_CHECKING = (
    False  # not that of `typing`: `python -m igpt` must import nothing before it has left the current folder out
)

__version__ = "0.1.0"

_HOME = {
    "Palette": "igpt.palette",
    "PixelTransformer": "igpt.model",
    "TransformerConfig": "igpt.model",
    "PRESETS": "igpt.model",
    "next_pixel_loss": "igpt.model",
    "masked_pixel_loss": "igpt.model",
    "generate": "igpt.model",
    "ImageDataModule": "igpt.data",
    "TensorImages": "igpt.data",
    "LabelledImages": "igpt.data",
    "Autoregressive": "igpt.modules",
    "BERT": "igpt.modules",
    "ByteAutoregressive": "igpt.modules",
    "CoarseToFine": "igpt.modules",
    "Joint": "igpt.modules",
    "PixelModule": "igpt.modules",
    "Model": "igpt.api",
    "Pictures": "igpt.api",
    "Predictions": "igpt.api",
    "create_model": "igpt.api",
    "find_pictures": "igpt.api",
    "load": "igpt.api",
    "UserError": "igpt.system.errors",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from typing import Any

    from igpt.api import Model as Model
    from igpt.api import Pictures as Pictures
    from igpt.api import Predictions as Predictions
    from igpt.api import create_model as create_model
    from igpt.api import find_pictures as find_pictures
    from igpt.api import load as load
    from igpt.data import ImageDataModule as ImageDataModule
    from igpt.data import LabelledImages as LabelledImages
    from igpt.data import TensorImages as TensorImages
    from igpt.model import PRESETS as PRESETS
    from igpt.model import PixelTransformer as PixelTransformer
    from igpt.model import TransformerConfig as TransformerConfig
    from igpt.model import generate as generate
    from igpt.model import masked_pixel_loss as masked_pixel_loss
    from igpt.model import next_pixel_loss as next_pixel_loss
    from igpt.modules import BERT as BERT
    from igpt.modules import Autoregressive as Autoregressive
    from igpt.modules import ByteAutoregressive as ByteAutoregressive
    from igpt.modules import CoarseToFine as CoarseToFine
    from igpt.modules import Joint as Joint
    from igpt.modules import PixelModule as PixelModule
    from igpt.palette import Palette as Palette
    from igpt.system import UserError as UserError


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(f"module 'igpt' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
