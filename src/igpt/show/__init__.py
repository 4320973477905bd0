"""A page in the browser around one model: complete a picture, see what surprises the model, walk through its layers."""

from igpt.show.serving import check_place, serve

__all__ = ["check_place", "serve"]
