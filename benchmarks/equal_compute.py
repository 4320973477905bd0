"""Loss of patterns of attention against the dense network at equal training compute.

    python benchmarks/equal_compute.py photos|mnist [--dense-steps 400] [--seeds 3] [--only dense rows]

A step of every way is timed first, in turn, on one thread; each way then trains for as many steps as fit the time that
the dense network's take, with a cosine over them, so that a machine that is busy during a training changes nothing. A
line for each run, and the mean of each way.
"""

import argparse
import time
from collections import defaultdict

import numpy as np
import torch

from igpt.model import PixelTransformer, TransformerConfig, next_pixel_loss
from igpt.palette import ColorCounts, fit_palette
from igpt_datamodules import Mnist5k, SamplePhotos

WAYS = {
    "dense": {},
    "rows": {"attention": [{"pattern": "rows", "k": 4}]},
    "rows and strided": {"attention": [{"pattern": "rows", "k": 2}, {"pattern": "strided", "part": "column"}]},
    "axial with bias": {"attention": ["axial"], "positions": "bias"},
    "dense with rope": {"positions": "rope"},
}
SIZES = {"photos": (64, 1, 64, 4, 2), "mnist": (28, 8, 64, 4, 2)}  # side, batch, width, layers, heads
COLORS, TESTED = 32, 32


def images_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(N, 3, R, R)` of the training and test split."""
    data = {"photos": SamplePhotos, "mnist": Mnist5k}[name](resolution=SIZES[name][0])
    data.prepare_data()
    return tuple(torch.stack([images[index][0] for index in range(len(images))])
                 for images in (data.images("train"), data.images("test")))  # fmt: skip


class Training:
    """A network of one way, its optimizer, and a step of it."""

    def __init__(self, name: str, way: dict, seed: int) -> None:
        side, self.batch, width, layers, heads = SIZES[name]
        torch.manual_seed(seed)
        self.model = PixelTransformer(TransformerConfig(layers, width, heads, side**2, COLORS, **way))
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.95), fused=True)

    def step(self, train: torch.Tensor, share: float) -> None:
        """One step at this share of the whole training: 5 % of warm-up, then a cosine."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.003 * min(1, 20 * share + 0.05) * 0.5 * (1 + np.cos(np.pi * share))
        chosen = train[torch.randint(len(train), (self.batch,))]
        next_pixel_loss(self.model(chosen, causal=True), chosen).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def step_times(train: torch.Tensor, name: str, ways: dict[str, dict], rounds: int = 7) -> dict[str, float]:
    """Median seconds of the processor's time that a step of each way takes, timed in turn; a first step is left out."""
    trainings = {way: Training(name, given, 0) for way, given in ways.items()}
    times = defaultdict(list)
    for _ in range(rounds + 1):
        for way, training in trainings.items():
            begun = time.process_time()
            training.step(train, 0.5)
            times[way].append(time.process_time() - begun)
    return {way: float(np.median(of[1:])) for way, of in times.items()}


def loss_of(tokens: tuple[torch.Tensor, torch.Tensor], name: str, way: dict, seed: int, steps: int) -> float:
    """Nats per pixel of test images after so many steps of training."""
    training, (train, test) = Training(name, way, seed), tokens
    for step in range(steps):
        training.step(train, step / steps)
    scored = test[torch.linspace(0, len(test) - 1, TESTED).long()]
    with torch.no_grad():
        losses = [next_pixel_loss(training.model(one[None], causal=True), one[None]).item() for one in scored]
    return float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=SIZES)
    parser.add_argument("--dense-steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(WAYS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = images_of(given.data)
    counts = ColorCounts()
    counts.add(images[0])
    palette = fit_palette(counts, min(COLORS, counts.unique()))
    tokens = tuple(torch.cat([palette.encode(part) for part in split.split(64)]) for split in images)
    times = step_times(
        tokens[0], given.data, {name: WAYS[name] for name in {"dense": None, **dict.fromkeys(given.only)}}
    )
    steps = {name: round(given.dense_steps * times["dense"] / times[name]) for name in given.only}
    print({name: f"{1000 * times[name]:.0f} ms a step, {count} steps" for name, count in steps.items()}, flush=True)
    found = defaultdict(list)
    for seed in range(given.seeds):
        for name, count in steps.items():
            found[name].append(loss_of(tokens, given.data, WAYS[name], seed, count))
            print(f"{given.data} {name:18} seed {seed}: {found[name][-1]:.4f} nats per pixel", flush=True)
    for name, losses in found.items():
        print(f"{given.data} {name:18} {np.mean(losses):.4f} ± {np.std(losses):.4f}")


if __name__ == "__main__":
    main()
