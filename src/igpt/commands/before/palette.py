"""`igpt palette`: from the training pixels of any data module to a palette file, its figures and a picture."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.commands.before.vq import check_vq_files, make_vq
from igpt.data import ImageDataModule, grid, spread
from igpt.palette import ColorCounts, Palette, VQRecipe, VQShape, fit_palette, palette_quality, quantizer_of
from igpt.system import Progress, UserError, atomic_path, check_own
from igpt.training import check_seed

SHOWN = 8  # images in the before/after picture
GREYISH = 0.1  # saturation below which a colour has no hue to speak of


def palette(
    data: ImageDataModule,
    out: str,
    colors: int = 512,
    seed: int = 0,
    kind: Literal["colours", "vq"] = "colours",
    steps: int | None = None,
    levels: list[int] | None = None,
) -> None:
    """Build a colour palette by k-means over the training pixels of any data module (paper, section 3.2).

    Writes NAME.npy (float32 (k, 3) in [-1, 1], the released format), NAME.json (quality) and NAME.png (the colours,
    and pictures before and after).

    With kind vq it trains VQ tokens instead, each for 4x4 pixels (docs/vq.md), and writes NAME.safetensors and, beside
    it, the same two.

    Args:
        data: whose training images to use, such as Digits, SamplePhotos, CIFAR10 or a plug-in's class.
        out: file to write, ending in .npy; of kind vq in .safetensors.
        colors: number of colours, k; 512 in the paper. Of kind vq, of codes.
        seed: of the clustering, or of the training; the same seed gives the same file.
        kind: colours, or vq: a small convolutional VQ-VAE, which needs igpt[families].
        steps: of 16 images that a VQ-VAE is trained (1500 if left out).
        levels: such as [8,8,8], of kind vq: codes are the points of a grid with so many levels in each direction (FSQ),
            in place of a learned codebook; their number is the product.
    """
    if kind == "vq":
        recipe = VQRecipe(VQRecipe.steps if steps is None else steps, seed=seed)
        return vq_palette(data, Path(out), VQShape.of_levels(levels) if levels else VQShape(codes=colors), recipe)
    for name, value in (("steps", steps), ("levels", levels)):
        if value is not None:
            raise UserError(f"--{name} {value} is for --kind vq; leave it out")
    if Path(out).suffix != ".npy":
        raise UserError(f"--out {out} must end in .npy")
    check_seed(seed)
    check_files(Path(out))
    data.check_pictures()
    data.prepare_data()
    make_palette(data, Path(out), colors, seed)
    return None


def vq_palette(data: ImageDataModule, target: Path, shape: VQShape, recipe: VQRecipe) -> None:
    """VQ tokens in place of colours; a UserError for what does not fit."""
    if target.suffix != ".safetensors":
        raise UserError(f"--out {target} must end in .safetensors, of --kind vq")
    if recipe.steps < 1:
        raise UserError(f"--steps {recipe.steps} must be at least 1")
    check_seed(recipe.seed)
    check_vq_files(target)
    quantizer_of(shape)  # says what is not installed before the images are read
    data.check_pictures()
    data.prepare_data()
    make_vq(data, target, shape, recipe)


def make_palette(data: ImageDataModule, target: Path, colors: int, seed: int = 0, at_most: bool = False) -> Palette:
    """Fit a palette to the training pixels of data that are ready, and write its three files.

    Args:
        at_most: take fewer colours where the pixels have fewer, instead of raising a UserError.
    """
    counts, examples = count_pixels(data)
    fitted = fit_palette(counts, min(colors, counts.unique()) if at_most else colors, seed)
    figures_of, shares = palette_quality(fitted, counts)
    report = {"k": fitted.k, "seed": seed, **figures_of, "sha256": fitted.sha256}
    transparent, background = data.transparent() or (0, None)
    if background is not None:
        report |= {"transparent_images": transparent, "background": background}
    figures, picture = target.with_suffix(".json"), target.with_suffix(".png")
    quality = "lossless" if report["psnr"] is None else f"mse {report['mse']:.2f}, psnr {report['psnr']:.1f} dB"
    with atomic_path(target) as whole, atomic_path(figures) as path, atomic_path(picture) as shown:  # all, or none
        fitted.save(whole)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw(fitted, shares, examples, quality, shown)
    if transparent:
        print(f"{transparent:,} of {data.size('train'):,} images are transparent in places; laid on {background}")
    print(
        f"palette: {fitted.k} colours for {report['pixels']:,} pixels of {report['unique_colors']:,} different colours"
        f"; {quality}, {report['unused_colors']} unused\nwrote {target}, {figures.name}, {picture.name}"
    )
    return fitted


def check_files(target: Path) -> None:
    """Raise a UserError unless all three files are free, or of an earlier palette: NAME.json knows NAME.npy."""
    figures = target.with_suffix(".json")

    def made(_: Path) -> bool:
        report = json.loads(figures.read_bytes())
        known = {"k", "seed", "sha256"} <= report.keys()
        return known and (not target.exists() or Palette.load(target).sha256 == report["sha256"])

    for file in (target, figures, target.with_suffix(".png")):
        check_own(file, made)


def count_pixels(data: ImageDataModule) -> tuple[ColorCounts, Tensor]:
    """Count the colours of the training split, batch by batch; also return some of its images, for the picture."""
    counts, train = ColorCounts(), data.images("train")
    with Progress(len(train), "images: colours counted", quiet=True) as progress:
        for images, _ in data.loader("train"):
            counts.add(images)
            progress.add(len(images))
    return counts, torch.stack([train[index][0] for index in spread(train.labels, SHOWN)])


def draw(palette: Palette, shares: NDArray[np.float64], examples: Tensor, quality: str, path: Path) -> None:
    """The colours by hue, the share of pixels of each, and pictures before and after."""
    from matplotlib.colors import rgb_to_hsv
    from matplotlib.figure import Figure

    rgb = palette.rgb().cpu().numpy()
    hue, saturation, value = rgb_to_hsv(rgb / 255).T
    order = np.lexsort((value, np.where(saturation < GREYISH, -1, np.round(hue * 12))))  # greys first
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(4, 1, height_ratios=[0.6, 1.2, 1.2, 1.2])
    axes[0].imshow(rgb[order][None], interpolation="nearest", aspect="auto")
    axes[0].set_title(f"{palette.k} colours by hue: {quality}", fontsize=10)
    axes[1].bar(range(palette.k), 100 * shares[order], width=1.0, color=rgb[order] / 255, edgecolor="none")
    axes[1].set(xlim=(-0.5, palette.k - 0.5), facecolor="0.8")
    axes[1].set_title("pixels of each colour, per cent", fontsize=10)
    after = palette.decode(palette.encode(examples), examples.shape[2:]).cpu()
    for axis, title, pictures in zip(axes[2:], ("24-bit pixels", "palette colours"), (examples, after), strict=True):
        axis.imshow(grid(pictures, len(pictures)).permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=10)
    for axis in (axes[0], *axes[2:]):
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
