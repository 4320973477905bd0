"""Sizes that a config may leave out, since they follow from its palette and data."""

from typing import Any

from igpt.checkpoints import build
from igpt.data import ImageDataModule, shape_of
from igpt.modules import ByteAutoregressive, colors_of
from igpt.palette import stride_of
from igpt.system import allowed_imports, packages


def infer_sizes(config: Any) -> None:
    """Fill in what is 0: `n_positions` by the resolution, `vocab_size` by the palette, classes by the data.

    A byte model has no palette, but all 256 values of a channel.
    Of pictures that are not square, `grid` says so beside `n_positions`.

    Args:
        config: the parsed options of a trainer's verb; changed in place.
    """
    model = config.model.init_args
    described = config.model if model.get("transformer") else model.get("generative") or {}
    core = described.get("init_args") or {}
    shape = core.get("transformer")
    if shape and not shape.n_positions:
        sides = shape_of(config.data.init_args.get("resolution") or _data(config).resolution)
        rows, columns = (side // stride_of(core.get("palette")) for side in sides)
        shape.n_positions = rows * columns
        if rows != columns and shape.get("grid") is None:
            shape.grid = (rows, columns)
    if shape and not shape.vocab_size:
        in_bytes = str(described["class_path"]).rpartition(".")[2] == ByteAutoregressive.__name__
        shape.vocab_size = 256 if in_bytes else colors_of(core.get("palette"))
    for name in ("num_classes", "classes"):
        if model.get(name) == 0:
            data = _data(config)
            data.prepare_data()
            data.setup()
            model[name] = data.num_classes


def _data(config: Any) -> ImageDataModule:
    data: ImageDataModule = build(config.data.as_dict(), ImageDataModule, packages() | allowed_imports())
    return data
