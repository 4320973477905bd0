"""Sizes that a config may leave out, since they follow from its palette and data."""

from typing import Any

from igpt.checkpoints import build
from igpt.data import ImageDataModule
from igpt.palette import Palette
from igpt.system import allowed_imports, find_palette, packages

COLORS = 512  # of a palette that is not there yet (paper, section 3.2)


def infer_sizes(config: Any) -> None:
    """Fill in what is 0: `n_positions` by the resolution, `vocab_size` by the palette, `num_classes` by the data.

    Args:
        config: the parsed options of a trainer's verb; changed in place.
    """
    model = config.model.init_args
    core = model if model.get("transformer") else (model.get("generative") or {}).get("init_args") or {}
    shape = core.get("transformer")
    if shape and not shape.n_positions:
        shape.n_positions = (config.data.init_args.get("resolution") or _data(config).resolution) ** 2
    if shape and not shape.vocab_size:
        shape.vocab_size = _colors(core.get("palette"))
    if model.get("num_classes") == 0:
        data = _data(config)
        data.prepare_data()
        data.setup()
        model.num_classes = data.num_classes


def _data(config: Any) -> ImageDataModule:
    data: ImageDataModule = build(config.data.as_dict(), ImageDataModule, packages() | allowed_imports())
    return data


def _colors(palette: str | None) -> int:
    file = find_palette(palette) if palette else None
    return Palette.load(file).k if file and file.exists() else COLORS
