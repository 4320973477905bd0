"""From JPEG files to tokens on one core: igpt's reading, cropping and encoding beside the same in two steps.

    python benchmarks/bench_jpeg.py [--rounds 3] [--files 500]

The files, 500x375 at quality 90, are warped crops of scikit-learn's two sample photos. igpt's side is a training draw
of its data set, then `Palette.encode` in batches. The two-step side does what the paper writes, with Pillow: decode,
resize the shorter side, crop 224x224, resize to 32x32, then the nearest colour from the same table. Crops are the same;
the pixels differ by an RMSE that the row states.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Measured, Work, arguments, igpt_side, measure, peer_side
from PIL import Image
from results import row, save_rows
from sklearn.datasets import load_sample_images
from torch import Tensor

from igpt.data import rng_of
from igpt.palette import Palette
from igpt_datamodules.augment import CROP, SHORTER, random_int, resized
from igpt_datamodules.files import Stored, StoredImages

WIDTH, HEIGHT, QUALITY, SIDE, BATCH, COLORS = 500, 375, 90, 32, 50, 512
AT_LEAST, MOST_RMSE = 2.7, 1.5
Draw = Callable[[int], Tensor]  # index to uint8 (3, 32, 32)


def write_files(folder: Path, count: int) -> None:
    """Pieces of the photos, each seen through a perspective of its own."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in range(count):
        photo = photos[number % len(photos)]
        corners = np.array([(0, 0), (0, photo.height), (photo.width, photo.height), (photo.width, 0)])
        inside = 1 - 2 * corners / (photo.width, photo.height)  # from each corner inwards
        quad = corners + inside * rng.uniform(0, 0.3, (4, 2)) * (photo.width, photo.height)
        piece = photo.transform((WIDTH, HEIGHT), Image.Transform.QUAD, tuple(quad.flatten()), Image.Resampling.BICUBIC)
        piece.save(folder / f"{number:04d}.jpg", quality=QUALITY)


def igpt_draws(paths: list[str]) -> Draw:
    """As the data modules of ImageNet and folders do in training."""
    images = StoredImages([Stored(path) for path in paths], [0] * len(paths), SIDE, augment=True)
    return lambda index: images.draw(index, rng_of(index))[0]


def two_step_draws(paths: list[str]) -> Draw:
    """As the paper writes it (section 3.1), with the same random numbers."""

    def draw(index: int) -> Tensor:
        rng = rng_of(index)
        image = Image.open(paths[index]).convert("RGB")
        width, height = scaled = resized(image.size, random_int(*SHORTER, rng))
        left, top = random_int(0, width - CROP, rng), random_int(0, height - CROP, rng)
        crop = image.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + CROP, top + CROP))
        small = crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    return draw


def jpeg_work(make_draws: Callable[[list[str]], Draw], folder: str) -> Work:
    torch.set_num_threads(1)
    paths = sorted(str(path) for path in Path(folder).glob("*.jpg"))
    draw = make_draws(paths)
    palette = Palette(torch.rand(COLORS, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    palette.encode(draw(0)[None])  # builds the table

    def one_round() -> float:
        for first in range(0, len(paths), BATCH):
            images = torch.stack([draw(index) for index in range(first, min(first + BATCH, len(paths)))])
            palette.encode(images)
        return len(paths)

    def check() -> dict[str, Any]:
        return {"pixels": np.stack([draw(index).numpy() for index in range(len(paths))])}

    return Work(one_round, check)


def rmse(ours: Measured, peer: Measured) -> float:
    """Of all pixels of all files, in 0..255 units."""
    difference = ours.found["pixels"].astype(np.float64) - peer.found["pixels"]
    return float(np.sqrt((difference**2).mean()))


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--files", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), options.files)
        sides = [igpt_side("igpt", jpeg_work, igpt_draws, folder)]
        sides += [peer_side("two steps with Pillow", jpeg_work, two_step_draws, folder)]
        found = measure(sides, options.rounds, warmup=0)  # the check has read every file
    ours, peer = found["igpt"], found["two steps with Pillow"]
    apart = rmse(ours, peer)
    if not apart <= MOST_RMSE:
        raise SystemExit(f"pixels differ by an RMSE of {apart:.2f}, more than {MOST_RMSE}; not the same work")
    note = f"one core; RMSE of the pixels {apart:.2f} of 255, at most {MOST_RMSE} asked for"
    save_rows(options.results, [row("JPEG files to tokens", "images", ours, peer, at_least=AT_LEAST, note=note)])


if __name__ == "__main__":
    main()
