"""Palette tokens of 32x32 patches at 512 colours: `Palette.encode` beside transformers' `ImageGPTImageProcessor`.

    python benchmarks/bench_encoding.py [--rounds 5] [--device cuda]

The patches are of scikit-learn's two sample photos. Each library in its own way: igpt takes a batch of 128 images as
one tensor, the processor a list of 128 images. The table that igpt looks colours up in is built before the clock runs.
Both must choose a colour at the same distance from every pixel, so that they differ at true ties alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from harness import Work, agree, arguments, igpt_side, measure, peer_side
from peaks import peaks
from results import bound_of, row, save_rows
from sklearn.datasets import load_sample_images
from torch import Tensor

from igpt.palette import Palette

SIDE, STRIDE, BATCH, COLORS = 32, 8, 128, 512
BATCHES = {"igpt": 200, "processor": 1}  # a round, so that rounds last long enough
AT_LEAST = 500.0
TOLERANCE = 1e-3  # of the distance in 0..255 units; the processor computes it from a difference in float32
BYTES = SIDE * SIDE * (3 + 2 + 8)  # of an image: three channels, an entry of the table, an int64 token


def photos() -> Tensor:
    """Both photos, uint8 `(2, H, W, 3)`."""
    return torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images])


def patches() -> Tensor:
    """All patches uint8 `(N, 3, 32, 32)`, in a seeded order."""
    found = photos().unfold(1, SIDE, STRIDE).unfold(2, SIDE, STRIDE).flatten(0, 2)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))].contiguous()


def colors() -> Tensor:
    """512 pixels of the photos as a palette in [-1, 1]; how good it is plays no part."""
    pixels = photos().reshape(-1, 3).unique(dim=0)
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1))[:COLORS]
    return pixels[chosen].float() / 127.5 - 1


def igpt_work(device: str) -> Work:
    palette = Palette(colors()).to(device)
    return encoding_work(palette.encode, patches().to(device).split(BATCH)[:-1], BATCHES["igpt"])


def processor_work(device: str) -> Work:
    from transformers import ImageGPTImageProcessor

    processor = ImageGPTImageProcessor(clusters=colors(), do_resize=False)
    encode = partial(processor, return_tensors="pt", **({"device": device} if device == "cuda" else {}))
    batches = [list(batch) for batch in patches().split(BATCH)[:-1]]
    return encoding_work(lambda images: encode(images)["input_ids"], batches, BATCHES["processor"])


def encoding_work(encode: Callable[[Any], Tensor], batches: Any, count: int) -> Work:
    def one_round() -> float:
        for number in range(count):
            tokens = encode(batches[number % len(batches)])
        tokens[0, 0].item()  # a GPU has then done everything
        return count * BATCH

    return Work(one_round, lambda: {"distance": distances(encode(batches[0]).cpu())})


def distances(tokens: Tensor) -> np.ndarray:
    """From each pixel of the first batch to the colour chosen for it, in 0..255 units."""
    pixels = patches()[:BATCH].flatten(2).movedim(1, -1).double()
    chosen = (colors().double() + 1)[tokens.long()] * 127.5
    return (pixels - chosen).norm(dim=-1).numpy()


def main() -> None:
    options = arguments(__doc__, rounds=5, device=True).parse_args()
    peak = peaks(options.device)
    sides = [igpt_side("igpt", igpt_work, options.device)]
    sides += [peer_side("ImageGPTImageProcessor", processor_work, options.device)]
    found = measure(sides, options.rounds)
    ours, peer = found["igpt"], found["ImageGPTImageProcessor"]
    cuda = options.device == "cuda"
    row_ = row(
        "encoding 32x32 images" + (f", {peak['device']}" if cuda else ""),
        "images",
        ours,
        peer,
        at_least=None if cuda else AT_LEAST,
        bound=bound_of("bytes", BYTES, ours.rate, peak["dram"], peak["device"]),
        note=agree(ours, peer, distance=TOLERANCE),
    )
    save_rows(options.results, [row_], peak)


if __name__ == "__main__":
    main()
