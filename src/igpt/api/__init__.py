"""What one uses from Python: load a model, give it pictures of any kind, get arrays."""

from igpt.api.intake import Broken, find_pictures
from igpt.api.loading import create_model, load, open_model
from igpt.api.model import Model
from igpt.api.pictures import Pictures, Predictions

__all__ = ["Broken", "Model", "Pictures", "Predictions", "create_model", "find_pictures", "load", "open_model"]
