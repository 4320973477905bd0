"""`igpt sample`: new images, or the missing half of given ones."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from igpt.commands.device import device_of
from igpt.data import ImageDataModule
from igpt.errors import UserError
from igpt.files import atomic_path
from igpt.loading import Loaded, load
from igpt.modules import Autoregressive
from igpt.pictures import enlarge, grid, open_picture, save_picture
from igpt.sampling import check_sampling


def sample(
    ckpt: str,
    out: str,
    num: int | None = None,
    complete: list[str] | None = None,
    rows: int = 0,
    keep: float = 0.5,
    data: ImageDataModule | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    accelerator: str = "auto",
) -> None:
    """Draw new images, or complete the lower half of test images or of any picture (paper, figure 1).

    Writes a grid of pictures, and beside it the tokens as .npy. Completions have a row an image: the kept part, the
    completions, the original in palette colours.

    Args:
        ckpt: checkpoint of an autoregressive model.
        out: picture to write, such as samples.png.
        num: images to draw (16 if left out), or completions of each given image (4 if left out).
        complete: picture files to complete; the central square, at the model's resolution, in palette colours.
        rows: complete this many images of the test split instead; each is one row of the grid.
        keep: share of each image's rows that is kept and shown to the model.
        data: where `rows` come from; the data that the checkpoint was trained on if left out.
        temperature: above 1 more varied, below 1 more typical.
        top_k: draw from the k likeliest colours only; 0 is all.
        top_p: draw from the likeliest colours that together reach this probability; 1 is all.
        seed: the same seed gives the same picture.
        accelerator: auto, cpu or gpu.

    Raises:
        UserError: no such checkpoint or picture, or a setting out of range.
    """
    check_sampling(temperature, top_k, top_p)
    if complete and rows:
        raise UserError("--complete and --rows exclude each other; give one of them")
    if (num is not None and num < 1) or rows < 0 or not 0 < keep < 1:
        raise UserError("--num must be at least 1, --rows at least 0, and --keep between 0 and 1")
    if Path(out).suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        raise UserError(f"--out {out} names no picture format; give a file name that ends in .png")
    loaded = load(ckpt, device_of(accelerator))
    module = loaded.module.core
    if not isinstance(module, Autoregressive):
        raise UserError(f"--ckpt {ckpt} holds a {type(module).__name__}; only autoregressive models draw images")
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    started = time.perf_counter()
    if complete or rows:
        originals = given_images(loaded, complete, rows, data).to(module.device)
        pictures, tokens = module.complete(originals, num or 4, keep, **settings)
        drawn = len(tokens) * (num or 4)
        predicted = drawn * (module.resolution**2 - module.kept_pixels(keep))
        shown, columns = pictures.flatten(0, 1), pictures.shape[1]
    else:
        drawn = num or 16
        tokens = module.draw_new(drawn, **settings)
        predicted = tokens.numel()
        shown, columns = module.palette.decode(tokens), max(1, round(drawn**0.5))
    seconds = time.perf_counter() - started
    save_picture(enlarge(grid(shown.cpu(), columns), module.resolution), out)
    with atomic_path(Path(out).with_suffix(".npy")) as path:
        np.save(path, tokens.cpu().numpy())
    print(
        f"drew {predicted:,} pixels of {drawn} images in {seconds:.1f} s: {predicted / seconds:,.0f} tokens/s\n"
        f"wrote {out}, {Path(out).with_suffix('.npy').name}"
    )


def given_images(loaded: Loaded, files: list[str] | None, rows: int, data: ImageDataModule | None) -> Tensor:
    """Images to complete, uint8 `(B, 3, R, R)`: picture files, or the first of the test split."""
    resolution = loaded.module.core.resolution
    if files:
        return torch.stack([open_picture(file, resolution) for file in files])
    data = data if data is not None else loaded.data()
    data.prepare_data()
    test = data.images("test")
    return torch.stack([test[index][0] for index in range(min(rows, data.size("test")))])
