"""`igpt init`: from a folder of pictures to a palette and a config that trains as it stands."""

from pathlib import Path

from igpt.commands.before.palette import make_palette
from igpt.data import ImageDataModule
from igpt.system import UserError, atomic_path, registered

SMALL_SIDE = 16  # up to here the network of the digits will do
SHAPES = ("n_layers: 6, d_model: 96, n_heads: 4", "n_layers: 8, d_model: 256, n_heads: 8")
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".tar"}
EPOCHS = 40
CONFIG = """\
# Made by igpt init for {folder}: {images:,} training images{classes}, {side}x{side}, {colors} colours.
# igpt fit --config {config}
# igpt probe --ckpt {run}                 (the accuracy of every layer's features{needs})
# igpt sample --ckpt {run} --rows 8 --num 4 --out {name}.png
# igpt report {run} --out {name}.html
model:
  class_path: igpt.modules.Autoregressive  # or igpt.modules.BERT, with sos: false in transformer
  init_args:
    transformer: {{{shape}}}  # the other sizes follow from palette and resolution
    palette: {palette}
    learning_rate: 0.003
data:
  class_path: {kind}
  init_args: {{root: {folder}, resolution: {side}, batch_size: {batch}, background: "{background}"}}
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
    resolution: int = 32,
    colors: int = 512,
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
        resolution: side in pixels that the pictures are brought to.
        colors: of the palette, at most; fewer where the pictures have fewer.
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
    data: ImageDataModule = kind.load()(
        root=str(root), resolution=resolution, batch_size=batch_size, background=background
    )
    data.prepare_data()
    count, batch = data.size("train"), min(batch_size, data.size("train"))
    made = make_palette(data, table, colors, at_most=True)
    steps = max(200, min(20_000, EPOCHS * count // batch))
    classes = f" of {data.num_classes} classes" if data.num_classes else " without labels"
    text = CONFIG.format(
        folder=folder,
        images=count,
        classes=classes,
        side=resolution,
        colors=made.k,
        config=config,
        run=f"runs/{config.stem}",
        needs="" if data.num_classes else "; it needs class folders",
        name=config.stem,
        shape=SHAPES[resolution > SMALL_SIDE],
        palette=table,
        kind=kind.value.replace(":", "."),
        batch=batch,
        background=background,
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
