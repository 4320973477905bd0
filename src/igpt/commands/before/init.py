"""`igpt init`: from a folder of pictures to a palette and a config that trains as it stands."""

import math
from pathlib import Path

from igpt.checkpoints import plain
from igpt.commands.before.palette import make_palette
from igpt.data import ImageDataModule, Resolution
from igpt.system import UserError, atomic_path, registered

SMALL = 16**2  # pixels, up to which the network of the digits will do
SHAPES = ("n_layers: 6, d_model: 96, n_heads: 4", "n_layers: 8, d_model: 256, n_heads: 8")
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".tar"}
EPOCHS = 40
CONFIG = """\
# Made by igpt init for {folder}: {images:,} training images{classes}, {size}, {colors} colours.
# igpt fit --config {config}
{probe}# igpt sample --ckpt {run} --rows 4 --num 4 --out completions.png
# igpt report {run} --out report.html
model:
  class_path: igpt.modules.Autoregressive  # or igpt.modules.BERT, with sos: false in transformer
  init_args:
    transformer: {{{shape}}}  # the other sizes follow from palette and resolution
    palette: {palette}
    learning_rate: 0.003
data:
  class_path: {kind}
  init_args: {{root: {folder}, resolution: {resolution}, batch_size: {batch}, {choices}}}
trainer:
  max_steps: {steps}
  precision: auto
  val_check_interval: {every}
  check_val_every_n_epoch: null
  log_every_n_steps: {logged}
"""


def init(
    folder: str,
    out: str | None = None,
    resolution: Resolution = 32,
    colors: int | None = None,
    batch_size: int = 64,
    background: str = "white",
) -> None:
    """Make a palette and a config for a folder of your own pictures, which `igpt fit --config` trains as it stands.

    Class folders (FOLDER/CLASS/..., or FOLDER/train/CLASS/... and FOLDER/test/CLASS/...) give labelled images, any
    other tree unlabelled ones. The network is a small one; its sizes and the number of steps stand in the config, to be
    changed there.

    Args:
        folder: of pictures of any size and format.
        out: config to write; FOLDER's name with .yaml if left out. The palette is written to palettes/ under that name.
        resolution: side in pixels that the pictures are brought to; two numbers are rows and columns, such as 48 64.
        colors: of the palette, at most; if left out one for every 256 pixels there are, from 16 to 512.
        batch_size: images a step.
        background: colour that transparent pictures are laid on: white, black, #ffcc00, ...
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder} is no folder; name one with pictures in it")
    config = Path(out or f"{root.resolve().name}.yaml")
    table = Path("palettes") / f"{config.stem}.npy"
    for path in (config, table):
        if path.exists():
            raise UserError(f"{path} exists already; give another --out, or remove it")
    kind = next(point for point in registered() if point.name == name_of(root))
    choices = {"background": background} | ({"on_error": "skip"} if kind.name == "ImageFolder" else {})
    data: ImageDataModule = kind.load()(root=str(root), resolution=resolution, batch_size=batch_size, **choices)
    data.prepare_data()
    pixels = math.prod(data.shape)
    count, batch = data.size("train"), min(batch_size, data.size("train"))
    if colors is None:
        colors = min(512, max(16, count * pixels // 256))
    made = make_palette(data, table, colors, at_most=True)
    steps = max(200, min(20_000, EPOCHS * count // batch))
    classes = f" of {data.num_classes} classes" if data.num_classes else " without labels"
    text = CONFIG.format(
        folder=folder,
        images=count,
        classes=classes,
        size="x".join(map(str, data.shape)),
        resolution=plain(data.resolution),
        colors=made.k,
        config=config,
        run=f"runs/{config.stem}",
        probe=f"# igpt probe --ckpt runs/{config.stem}\n" if data.num_classes else "",
        shape=SHAPES[pixels > SMALL],
        palette=table,
        kind=kind.value.replace(":", "."),
        batch=batch,
        choices=", ".join(f'{name}: "{value}"' for name, value in choices.items()),
        steps=steps,
        every=max(1, steps // 10),
        logged=min(10, count // batch),
    )
    with atomic_path(config) as path:
        path.write_text(text, encoding="utf-8")
    print(f"wrote {config}; train with: igpt fit --config {config}")


def name_of(root: Path) -> str:
    """The data module for a folder: pictures beside each other have no classes."""
    suffixes = {path.suffix.lower() for path in root.iterdir() if path.is_file() and not path.name.startswith(".")}
    folders = any(path.is_dir() and not path.name.startswith(".") for path in root.iterdir())
    return "ImageFolder" if folders and not suffixes & PICTURES else "WebImages"
