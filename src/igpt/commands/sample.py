"""`igpt sample` and `igpt surprise`: pictures that a checkpoint draws, and how likely it finds given ones."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.data import (
    ImageDataModule,
    Resolution,
    beside,
    check_pair,
    enlarge,
    grid,
    heat,
    heat_legend,
    open_mask,
    open_picture,
    save_picture,
    spread,
    with_headings,
)
from igpt.model import NATS_PER_BIT, SamplingOptions
from igpt.modules import BERT, Loaded, PixelModel, load
from igpt.system import Compute, Precision, UserError, atomic_path, compute_of
from igpt.training import check_seed, ready

MOST = 10**6  # images of one command
SIDE = 240  # pixels that an image of `surprise` is about wide
BATCH = 16


def sample(
    ckpt: str,
    out: str,
    num: int | None = None,
    complete: list[str] | None = None,
    rows: int = 0,
    indices: list[int] | None = None,
    keep: float | None = None,
    mask: str | None = None,
    resolution: Resolution | None = None,
    data: ImageDataModule | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    steps: int | None = None,
    seed: int = 0,
    classes: list[str] | None = None,
    guidance: float | None = None,
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
        complete: picture files to complete; the central part, at the model's resolution, in palette colours.
        rows: complete this many images of the test split instead, of as many classes as there are; each is one row of
            the grid, and they are the same ones whatever the seed.
        indices: complete these images of the test split instead, by their numbers from 0.
        keep: share of each image's rows (in another pixel order, of its sequence) that is kept and shown to the model
            (0.5 if left out); 0.25 keeps the small picture of subscale2.
        mask: picture file instead of keep: its central part is laid over each image, and what is lighter than medium
            grey there is drawn anew, in any place and shape; all white draws the whole image.
        resolution: draw at another one than the model's, a side or rows and columns; of a model whose
            `transformer.positions` are bias, shared_bias or rope. Not with test images.
        data: where `rows` come from; the data that the checkpoint was trained on if left out.
        temperature: above 1 more varied, below 1 more typical.
        top_k: draw from the k likeliest colours only; 0 is all.
        top_p: draw from the likeliest colours that together reach this probability; 1 is all.
        steps: passes in which BERT draws (64 if left out); more are more coherent and take longer. Not for AR.
        seed: the same seed gives the same picture.
        classes: classes to draw by name or number, also as --class, of a model that is told them; of several, `num`
            images each.
        guidance: how much the class counts: 1 as in training, 0 not at all, above 1 more, in twice the time.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here: bf16-mixed on a GPU that has it, 32-true on a CPU.
        tf32: on CUDA, let float32 products round to TF32.
        compile: draw each pixel by one compiled graph: after half a minute up to twice as fast on a CPU; not yet timed
            on CUDA. Not for BERT.
    """
    options = SamplingOptions(temperature, top_k, top_p, seed, compile=compile, progress=True)
    options = options if steps is None else replace(options, steps=steps)
    options.check()
    check_choice(num, complete, rows, indices, keep, mask)
    if guidance is not None and not classes:
        raise UserError(f"--guidance {guidance} is towards a class; name one with --class")
    if classes and len(classes) > 1 and (complete or rows or indices):
        raise UserError("--class: completions are of one class; name one")
    check_seed(seed)
    check_pair(out, lambda made: made.dtype == np.int64 and made.ndim in (2, 3), [ckpt, mask, *(complete or [])])
    compute = ready(compute_of(accelerator, precision, work="pixels"), tf32)
    loaded = load(ckpt, compute.device)
    module = loaded.module.core
    check_kind(module, ckpt, steps, compile)
    if classes:
        labels = loaded.labels_of(classes)
        of_each = (num or 16) if len(labels) > 1 else 1
        options = replace(options, labels=tuple(label for label in labels for _ in range(of_each)))
        options = replace(options, guidance=1.0 if guidance is None else guidance)
        options.check()
    if resolution is not None:
        module = module.at_resolution(resolution)
    started = time.perf_counter()
    with compute.autocast():
        if complete or rows or indices:
            region, keep = given_region(mask, module.resolution), 0.5 if keep is None else keep
            originals = given_images(loaded, module, complete, rows, indices, data).to(module.device)
            shown, tokens = module.complete(originals, num or 4, keep, region, options)
            names = ["given", *[f"drawn {index + 1}" for index in range(shown.shape[1] - 2)], "original"]
            picture = with_headings(enlarge(grid(shown.flatten(0, 1).cpu(), len(names))), names)
            drawn = int(module.unknown_part(keep, region).sum())
        else:
            each, asked = num or 16, len(classes or ())
            tokens = module.sample(each * max(1, asked), options)
            columns = each if asked > 1 else max(1, round(len(tokens) ** 0.5))
            picture = enlarge(grid(module.decode(tokens).cpu(), columns))
            drawn = tokens.shape[1]
    seconds, images = time.perf_counter() - started, tokens.numel() // tokens.shape[-1]
    write(picture, tokens.cpu().numpy(), out)
    what = "VQ tokens" if module.stride > 1 else "pixels"
    print(
        f"drew {images * drawn:,} {what} of {images} images in {seconds:.1f} s: {images * drawn / seconds:,.0f} "
        f"tokens/s\nwrote {out}, {Path(out).with_suffix('.npy').name}"
    )


def check_choice(
    num: int | None,
    complete: list[str] | None,
    rows: int,
    indices: list[int] | None,
    keep: float | None,
    mask: str | None,
) -> None:
    """Raise a UserError for options that exclude each other, or numbers out of range."""
    given = [name for name, value in {"--complete": complete, "--rows": rows, "--indices": indices}.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    if keep is not None and mask is not None:
        raise UserError("--keep and --mask exclude each other; give one of them")
    for option, value in (("--mask", mask), ("--keep", keep)):
        if value is not None and not given:
            raise UserError(f"{option} is about given images; name them with --complete, --rows or --indices")
    if (num is not None and num < 1) or rows < 0 or not (keep is None or 0 < keep < 1):
        raise UserError("--num must be at least 1, --rows at least 0, and --keep between 0 and 1")
    if num is not None and num > MOST:
        raise UserError(f"--num {num} is more than one picture can show; choose at most {MOST:,}")


def check_kind(module: PixelModel, ckpt: str, steps: int | None, compile: bool) -> None:
    """Raise a UserError for an option that only the other kind of model has."""
    if steps is not None and not isinstance(module, BERT):
        raise UserError(f"--steps {steps}: --ckpt {ckpt} is autoregressive and draws pixel by pixel; leave --steps out")
    if compile and isinstance(module, BERT):
        raise UserError(f"--compile: --ckpt {ckpt} is BERT, which draws in a few passes; leave --compile out")


def given_images(
    loaded: Loaded,
    module: PixelModel,
    files: list[str] | None,
    rows: int,
    indices: list[int] | None,
    data: ImageDataModule | None,
) -> Tensor:
    """Images to complete, uint8 `(B, 3, R, R)`: picture files, or some of the test split."""
    if files:
        return torch.stack([open_picture(file, module.resolution, loaded.background) for file in files])
    data = data if data is not None else loaded.data()
    module.check_resolution(data.shape)
    module.check_colors(data)
    data.prepare_data()
    test = data.images("test")
    for index in indices or ():
        if not 0 <= index < data.size("test"):
            raise UserError(f"--indices {index}: the test split has images 0 to {data.size('test') - 1}")
    return torch.stack([test[index][0] for index in indices or spread(test.labels, rows)])


def given_region(mask: str | None, resolution: Resolution) -> Tensor | None:
    """What a mask file says is drawn anew, bool `(R, R)`; None where none is given, a UserError if it is nothing."""
    if mask is None:
        return None
    region = open_mask(mask, resolution)
    if not region.any():
        size = "x".join(map(str, region.shape))
        raise UserError(f"--mask {mask} has no white pixel at the model's {size}; paint white what is to be drawn")
    return region


def write(picture: Tensor, array: NDArray[np.generic], out: str) -> None:
    """Write the picture and the array beside it as .npy: both files, or none."""
    with atomic_path(out) as shown, atomic_path(Path(out).with_suffix(".npy")) as path:
        save_picture(picture, shown)
        np.save(path, array)


def surprise(
    files: list[str],
    ckpt: str,
    out: str,
    top: float | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """A picture of how surprising each pixel is: -log p of its palette colour, in nats.

    Writes a picture with a row a file, the image in palette colours beside its heat map and its name, all on one scale;
    and beside it NAME.npy, float32 (files, R, R) in nats. Prints the mean of each.

    AR: exact, each pixel given those before it; the sum is the image's negative log-likelihood. BERT: every pixel is
    scored once while it is hidden, under disjoint masks of about the share that it was trained with, given all pixels
    outside its mask; that is a pseudo-likelihood, which can be compared between images but not with AR's.

    Args:
        files: pictures; of each the central part, at the model's resolution, in palette colours.
        ckpt: checkpoint of an AR or BERT model, or of one that was fine-tuned.
        out: picture to write, such as surprise.png.
        top: the scale ends at so many nats, so that pictures of several commands can be compared; the highest surprise
            of all files if left out.
        seed: of BERT's masks.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.
    """
    check_pair(out, lambda made: made.dtype == np.float32 and made.ndim == 3, [ckpt, *files])
    check_seed(seed)
    if top is not None and not 0 < top < float("inf"):
        raise UserError(f"--top {top} must be a number above 0")
    if not files:
        raise UserError("--files is empty; name one picture or more")
    compute = ready(compute_of(accelerator, precision), tf32)
    loaded = load(ckpt, compute.device)
    module = loaded.module.core
    images = torch.stack([open_picture(file, module.resolution, loaded.background) for file in files])
    tokens, nats = surprise_of(module, images, seed, compute)
    scale = max(float(nats.max()), 1e-6) if top is None else top
    pairs = torch.stack([module.decode(tokens).cpu(), heat(module.by_pixel(nats), scale)], dim=1)
    means = nats.double().mean((1, 2)).tolist()
    picture = enlarge(grid(pairs.flatten(0, 1), columns=2), max(1, SIDE // module.pixels[1]))
    picture = beside(
        picture, [[Path(file).name, f"{mean:.2f} nats per pixel"] for file, mean in zip(files, means, strict=True)]
    )
    legend = heat_legend(scale, picture.shape[2], "nats per pixel")
    write(torch.cat([picture, legend], dim=1), nats.numpy(), out)
    for file, mean in zip(files, means, strict=True):
        print(f"{file}: {mean:.4f} nats, {mean / NATS_PER_BIT:.4f} bits per pixel")
    print(f"wrote {out}, {Path(out).with_suffix('.npy').name}")


@torch.inference_mode()
def surprise_of(module: PixelModel, images: Tensor, seed: int, compute: Compute) -> tuple[Tensor, Tensor]:
    """Tokens int64 `(N, T)` and surprise float32 `(N, R, R)` on the CPU, both in raster order, of images uint8."""
    tokens = module.encode(images.to(module.device))
    with compute.autocast():
        nats = torch.cat([module.surprise(part, seed) for part in tokens.split(BATCH)])
    return module.to_raster(tokens), module.to_raster(nats).unflatten(1, module.shape).cpu()
