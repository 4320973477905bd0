"""`igpt palette`: from the training pixels of any data module to a palette file, its figures and a picture."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.data import ImageDataModule
from igpt.palette import ColorCounts, Palette, fit_palette, palette_quality
from igpt.system import UserError, atomic_path, check_own
from igpt.training import check_seed

SHOWN = 8  # images in the before/after picture


def palette(data: ImageDataModule, out: str, colors: int = 512, seed: int = 0) -> None:
    """Build a colour palette by k-means over the training pixels of any data module (paper, section 3.2).

    Writes NAME.npy (float32 (k, 3) in [-1, 1], the released format), NAME.json (quality) and NAME.png (the colours,
    and pictures before and after).

    Args:
        data: whose training images to use, such as Digits, SamplePhotos, CIFAR10 or a plug-in's class.
        out: file to write, ending in .npy.
        colors: number of colours, k; 512 in the paper.
        seed: of the clustering; the same seed gives the same file.

    Raises:
        UserError: `out` does not end in .npy, the data are missing, or have fewer than k different colours; or a
            file that would be written over is not of an earlier palette.
    """
    target = Path(out)
    if target.suffix != ".npy":
        raise UserError(f"--out {out} must end in .npy")
    check_seed(seed)
    check_files(target)
    data.prepare_data()
    counts, examples = count_pixels(data)
    fitted = fit_palette(counts, colors, seed)
    report = {"k": fitted.k, "seed": seed, **palette_quality(fitted, counts), "sha256": fitted.sha256}
    beside = [target.with_suffix(suffix) for suffix in (".json", ".png")]
    with atomic_path(target) as whole, atomic_path(beside[0]) as path, atomic_path(beside[1]) as shown:  # all, or none
        fitted.save(whole)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw(fitted, examples, report, shown)
    quality = "lossless" if report["psnr"] is None else f"mse {report['mse']:.2f}, psnr {report['psnr']:.1f} dB"
    print(
        f"palette: {fitted.k} colours for {report['pixels']:,} pixels of {report['unique_colors']:,} different colours"
        f"; {quality}, {report['unused_colors']} unused\n"
        f"wrote {target}, {target.with_suffix('.json').name}, {target.with_suffix('.png').name}"
    )


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
    """Count the colours of the training split, batch by batch; also return its first images, for the picture."""
    counts = ColorCounts()
    examples: list[Tensor] = []
    for images, _ in data.loader("train"):
        counts.add(images)
        if sum(len(part) for part in examples) < SHOWN:
            examples.append(images)
    return counts, torch.cat(examples)[:SHOWN]


def draw(palette: Palette, examples: Tensor, report: dict[str, Any], path: Path) -> None:
    """The colours, sorted by lightness, above rows of images before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[1.6, 1, 1])
    rgb = palette.rgb().cpu()
    order = (rgb.float() @ torch.tensor([0.299, 0.587, 0.114])).argsort()
    columns = min(64, palette.k)
    rows = -(-palette.k // columns)
    swatch = torch.full((rows * columns, 3), 255, dtype=torch.uint8)
    swatch[: palette.k] = rgb[order]
    top.imshow(swatch.view(rows, columns, 3).numpy(), aspect="auto", interpolation="nearest")
    quality = (
        "lossless" if report["psnr"] is None else f"mean squared error {report['mse']:.2f}, {report['psnr']:.1f} dB"
    )
    top.set_title(f"{palette.k} colours by lightness: {quality}", fontsize=10)
    for axis, images, title in (
        (middle, examples, "before: 24-bit pixels"),
        (bottom, palette.decode(palette.encode(examples)).cpu(), "after: palette colours"),
    ):
        axis.imshow(torch.cat(list(images), dim=2).permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=10)
    for axis in (top, middle, bottom):
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=130)
