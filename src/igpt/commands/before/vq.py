"""`igpt palette --kind vq`: from the training images of a data module to a file of VQ tokens, figures, a picture."""

import json
from pathlib import Path

import torch
from torch import Tensor

from igpt.data import ImageDataModule, Split, enlarge, grid, rng_of, save_picture, spread
from igpt.palette import VQQuality, VQRecipe, VQShape, VQTokens, fit_vq, stride_of
from igpt.system import Progress, UserError, atomic_path, check_own

BATCH = 16  # images of a training step
SHOWN = 8  # pairs of images in the picture
MEASURED = 1024  # images of a split, evenly spread, that are measured at most


def make_vq(data: ImageDataModule, target: Path, shape: VQShape, recipe: VQRecipe) -> VQTokens:
    """Train VQ tokens on the training images of data that are ready, and write their three files.

    Args:
        data: whose images; their sides are multiples of 4.
        target: NAME.safetensors.
        shape: sizes of the tokeniser.
        recipe: how long it is trained, and from which seed.

    Raises:
        UserError: the sides do not divide, or a file stands there that is not of this verb.
    """
    stride = stride_of(str(target))
    if any(side % stride for side in data.shape):
        raise UserError(f"--data: --kind vq needs sides that are multiples of {stride}, not {data.shape}")
    train = data.images("train")

    def batch(step: int) -> Tensor:
        places = torch.randint(len(train), (BATCH,), generator=rng_of(recipe.seed, step))
        return torch.stack([train[int(place)][0] for place in places])

    tokens = fit_vq(batch, shape, recipe)
    splits = {split: quality(tokens, data, split) for split in ("train", "val")}
    report = {"kind": "vq", "k": tokens.k, "seed": recipe.seed, "steps": recipe.steps, "tokens": tokens.written,
              **splits, "sha256": tokens.sha256}  # fmt: skip
    examples = torch.stack([train[index][0] for index in spread(train.labels, SHOWN)])
    after = tokens.decode(tokens.encode(examples), [side // stride for side in data.shape])
    figures, picture = target.with_suffix(".json"), target.with_suffix(".png")
    with atomic_path(target) as whole, atomic_path(figures) as path, atomic_path(picture) as shown:  # all, or none
        tokens.save(whole)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        save_picture(enlarge(grid(torch.cat([examples, after]), len(examples))), shown)
    for split, found in splits.items():
        lost = "nothing lost" if found["psnr"] is None else f"mse {found['mse']:.1f}, psnr {found['psnr']:.2f} dB"
        print(
            f"{split}: {lost}; of {tokens.k} codes {found['unused_codes']} unused, perplexity {found['perplexity']:.1f}"
        )
    print(f"wrote {target}, {figures.name}, {picture.name}")
    return tokens


def quality(tokens: VQTokens, data: ImageDataModule, split: Split) -> dict[str, float | int | None]:
    """`VQQuality.figures` over a split, or MEASURED of its images."""
    images, found = data.images(split), VQQuality(tokens)
    places = range(0, len(images), max(1, -(-len(images) // MEASURED)))
    with Progress(len(places), f"images of {split} measured", quiet=True) as progress:
        for first in range(0, len(places), BATCH):
            part = places[first : first + BATCH]
            found.add(torch.stack([images[index][0] for index in part]))
            progress.add(len(part))
    return {"images": len(places), **found.figures()}


def check_vq_files(target: Path) -> None:
    """Raise a UserError unless all three files are free, or of earlier VQ tokens: NAME.json knows NAME.safetensors."""
    figures = target.with_suffix(".json")

    def made(_: Path) -> bool:
        report = json.loads(figures.read_bytes())
        known = report.get("kind") == "vq" and "sha256" in report
        return known and (not target.exists() or VQTokens.load(target).sha256 == report["sha256"])

    for file in (target, figures, target.with_suffix(".png")):
        check_own(file, made)
