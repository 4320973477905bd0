"""`igpt palette`: from the training pixels of any data module to a palette file, its figures and a picture."""

import json
from pathlib import Path

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
    figures, picture = target.with_suffix(".json"), target.with_suffix(".png")
    quality = "lossless" if report["psnr"] is None else f"mse {report['mse']:.2f}, psnr {report['psnr']:.1f} dB"
    with atomic_path(target) as whole, atomic_path(figures) as path, atomic_path(picture) as shown:  # all, or none
        fitted.save(whole)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw(fitted, examples, quality, shown)
    print(
        f"palette: {fitted.k} colours for {report['pixels']:,} pixels of {report['unique_colors']:,} different colours"
        f"; {quality}, {report['unused_colors']} unused\nwrote {target}, {figures.name}, {picture.name}"
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


def draw(palette: Palette, examples: Tensor, quality: str, path: Path) -> None:
    """The colours, sorted by lightness, above rows of images before and after."""
    from matplotlib.figure import Figure

    rgb = palette.rgb().cpu()
    columns = min(64, palette.k)
    swatch = torch.full((-(-palette.k // columns) * columns, 3), 255, dtype=torch.uint8)
    swatch[: palette.k] = rgb[(rgb.float() @ torch.tensor([0.299, 0.587, 0.114])).argsort()]
    before, after = (
        torch.cat(list(images), dim=2).permute(1, 2, 0)
        for images in (examples, palette.decode(palette.encode(examples)).cpu())
    )
    pictures = {
        f"{palette.k} colours by lightness: {quality}": swatch.view(-1, columns, 3),
        "before: 24-bit pixels": before,
        "after: palette colours": after,
    }
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots(3, 1, height_ratios=[1.6, 1, 1])
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.numpy(), interpolation="nearest", aspect="auto" if axis is axes[0] else "equal")
        axis.set_title(title, fontsize=10)
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=130)
