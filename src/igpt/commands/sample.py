"""`igpt sample`: new images, or a missing part of given ones."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.data import ImageDataModule, check_pair, enlarge, grid, open_mask, open_picture, save_picture
from igpt.model import SamplingOptions
from igpt.modules import BERT, Loaded, PixelModel, load
from igpt.system import Precision, UserError, atomic_path, compute_of
from igpt.training import check_seed, ready

MOST = 10**6  # images of one command


def sample(
    ckpt: str,
    out: str,
    num: int | None = None,
    complete: list[str] | None = None,
    rows: int = 0,
    keep: float | None = None,
    mask: str | None = None,
    data: ImageDataModule | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    steps: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
    compile: bool = False,
) -> None:
    """Draw new images, or a part of test images or of any picture anew (paper, figure 1), with AR or BERT.

    Writes a grid of pictures, and beside it the tokens as .npy. Completions have a row an image: the kept part, the
    completions, the original in palette colours.

    AR draws pixel by pixel, each given those before it; BERT unmasks all missing pixels in a few passes, given what is
    known on every side. So with a mask, AR knows nothing of what lies below it, and BERT does.

    Args:
        ckpt: checkpoint of an AR or BERT model, or of one that was fine-tuned.
        out: picture to write, such as samples.png.
        num: images to draw (16 if left out), or completions of each given image (4 if left out).
        complete: picture files to complete; the central square, at the model's resolution, in palette colours.
        rows: complete this many images of the test split instead; each is one row of the grid.
        keep: share of each image's rows that is kept and shown to the model (0.5 if left out).
        mask: picture file instead of keep: its central square is laid over each image, and what is lighter than medium
            grey there is drawn anew, in any place and shape; all white draws the whole image.
        data: where `rows` come from; the data that the checkpoint was trained on if left out.
        temperature: above 1 more varied, below 1 more typical.
        top_k: draw from the k likeliest colours only; 0 is all.
        top_p: draw from the likeliest colours that together reach this probability; 1 is all.
        steps: passes in which BERT draws (64 if left out); more are more coherent and take longer. Not for AR.
        seed: the same seed gives the same picture.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here: bf16-mixed on a GPU that has it, 32-true on a CPU.
        tf32: on CUDA, let float32 products round to TF32.
        compile: draw each pixel by one compiled graph; half a minute to begin with, then up to twice as fast on a CPU;
            of no use on CUDA, where steps are recorded anyway. Not for BERT.

    Raises:
        UserError: no such checkpoint or picture, a setting out of range, or `out` holds what is not of this command.
    """
    given = {} if steps is None else {"steps": steps}
    options = SamplingOptions(temperature, top_k, top_p, seed, compile=compile, **given)
    options.check()
    check_choice(num, complete, rows, keep, mask)
    check_seed(seed)
    check_pair(out, is_tokens, [ckpt, mask, *(complete or [])])
    compute = ready(compute_of(accelerator, precision, work="pixels"), tf32)
    loaded = load(ckpt, compute.device)
    module = loaded.module.core
    check_kind(module, ckpt, steps, compile)
    started = time.perf_counter()
    with compute.autocast():
        if complete or rows:
            region = given_region(mask, module.resolution)
            originals = given_images(loaded, complete, rows, data)
            drawn = completed(module, originals, num or 4, 0.5 if keep is None else keep, region, options)
        else:
            drawn = drawn_new(module, num or 16, options)
    seconds = time.perf_counter() - started
    write(drawn, module.resolution, out)
    print(
        f"drew {drawn.pixels:,} pixels of {drawn.images} images in {seconds:.1f} s: "
        f"{drawn.pixels / seconds:,.0f} tokens/s\nwrote {out}, {Path(out).with_suffix('.npy').name}"
    )


@dataclass(frozen=True)
class Drawn:
    """What was drawn, and how it is shown.

    Args:
        shown: pictures uint8 `(N, 3, R, R)` of the grid, row by row.
        columns: of the grid.
        tokens: those of the new images, for the .npy.
        images: how many of the pictures are new.
        pixels: how many pixels were drawn for them.
    """

    shown: Tensor
    columns: int
    tokens: Tensor
    images: int
    pixels: int


def check_kind(module: PixelModel, ckpt: str, steps: int | None, compile: bool) -> None:
    """Raise a UserError for an option that only the other kind of model has."""
    if steps is not None and not isinstance(module, BERT):
        raise UserError(f"--steps {steps}: --ckpt {ckpt} is autoregressive and draws pixel by pixel; leave --steps out")
    if compile and isinstance(module, BERT):
        raise UserError(f"--compile: --ckpt {ckpt} is BERT, which draws in a few passes; leave --compile out")


def completed(
    module: PixelModel, originals: Tensor, num: int, keep: float, region: Tensor | None, options: SamplingOptions
) -> Drawn:
    """So many completions of each image uint8 `(B, 3, R, R)`, a row an image."""
    pictures, tokens = module.complete(originals.to(module.device), num, keep, region, options)
    images = len(originals) * num
    pixels = images * int(module.unknown_part(keep, region).sum())
    return Drawn(pictures.flatten(0, 1), pictures.shape[1], tokens, images, pixels)


def drawn_new(module: PixelModel, num: int, options: SamplingOptions) -> Drawn:
    """So many new images, in a square as far as they go."""
    tokens = module.sample(num, options)
    return Drawn(module.palette.decode(tokens), max(1, round(num**0.5)), tokens, num, tokens.numel())


def is_tokens(array: NDArray[np.generic]) -> bool:
    """Whether `write` makes such arrays: of new images `(N, T)`, or of completions `(B, num, T)`."""
    return array.dtype == np.int64 and array.ndim in (2, 3)


def write(drawn: Drawn, resolution: int, out: str) -> None:
    """Write the picture and the tokens beside it: both files, or none."""
    with atomic_path(out) as picture, atomic_path(Path(out).with_suffix(".npy")) as path:
        save_picture(enlarge(grid(drawn.shown.cpu(), drawn.columns), resolution), picture)
        np.save(path, drawn.tokens.cpu().numpy())


def check_choice(num: int | None, complete: list[str] | None, rows: int, keep: float | None, mask: str | None) -> None:
    """Raise a UserError for options that exclude each other, or numbers out of range."""
    if complete and rows:
        raise UserError("--complete and --rows exclude each other; give one of them")
    if keep is not None and mask is not None:
        raise UserError("--keep and --mask exclude each other; give one of them")
    if mask is not None and not complete and not rows:
        raise UserError("--mask says what of given images is drawn anew; name them with --complete or --rows")
    if keep is not None and not complete and not rows:
        raise UserError("--keep says what of given images stays; name them with --complete or --rows")
    if (num is not None and num < 1) or rows < 0 or not (keep is None or 0 < keep < 1):
        raise UserError("--num must be at least 1, --rows at least 0, and --keep between 0 and 1")
    if num is not None and num > MOST:
        raise UserError(f"--num {num} is more than one picture can show; choose at most {MOST:,}")


def given_images(loaded: Loaded, files: list[str] | None, rows: int, data: ImageDataModule | None) -> Tensor:
    """Images to complete, uint8 `(B, 3, R, R)`: picture files, or the first of the test split."""
    resolution = loaded.module.core.resolution
    if files:
        return torch.stack([open_picture(file, resolution) for file in files])
    data = data if data is not None else loaded.data()
    loaded.module.core.check_resolution(data.resolution)
    loaded.module.core.check_colors(data)
    data.prepare_data()
    test = data.images("test")
    return torch.stack([test[index][0] for index in range(min(rows, data.size("test")))])


def given_region(mask: str | None, resolution: int) -> Tensor | None:
    """What a mask file says is drawn anew, bool `(R, R)`; None where none is given.

    Raises:
        UserError: no such picture, or nothing in it is white.
    """
    if mask is None:
        return None
    region = open_mask(mask, resolution)
    if not region.any():
        size = f"{resolution}x{resolution}"
        raise UserError(f"--mask {mask} has no white pixel at the model's {size}; paint white what is to be drawn")
    return region
