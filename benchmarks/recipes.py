"""The modern recipe against the paper's at equal width: how many steps and how much time it takes to the same loss.

    python benchmarks/recipes.py mnist|photos [--seeds 3] [--steps 600] [--share 0.7] [--rates 0.003] [--without]

For each seed the paper's recipe is trained for N steps with each of the rates, and the modern one for a share of them
with a schedule of its own, on one thread; a line for each run gives the loss of validation images at its end. The time
of a step is measured before, in turn. `--without` also trains the modern recipe with the paper's in place of each part.
"""

import argparse
import time

import numpy as np
import torch

from igpt.model import TransformerConfig, next_pixel_loss
from igpt.modules import Autoregressive
from igpt.palette import ColorCounts, fit_palette
from igpt.parsing import RECIPES
from igpt_datamodules import Mnist5k, SamplePhotos

SIZES = {"mnist": (14, 8, 64, 96, 6, 4), "photos": (32, 64, 16, 64, 4, 4)}  # side, colours, batch, width, layers, heads
STEPS = {"mnist": 600, "photos": 300}
RATES = (0.001, 0.003, 0.01)  # of the paper's recipe; the best one counts
WARM_UP, SHARE, TESTED = 30, 0.7, 128
PARTS = ("optimizer", "schedule", "qk_norm", "positions")


def images_of(name: str, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(N, 3, R, R)` of the training and validation split."""
    data = {"photos": SamplePhotos, "mnist": Mnist5k}[name](resolution=side)
    data.prepare_data()
    return tuple(torch.stack([images[index][0] for index in range(len(images))])
                 for images in (data.images("train"), data.images("val")))  # fmt: skip


def tokens_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both splits as palette tokens `(N, T)`."""
    side, colors, *_ = SIZES[name]
    images = images_of(name, side)
    counts = ColorCounts()
    counts.add(images[0])
    palette = fit_palette(counts, colors)
    return tuple(torch.cat([palette.encode(part) for part in split.split(64)]) for split in images)


def model_of(name: str, way: dict) -> Autoregressive:
    """The network of a data set with a recipe, parts of the transformer among its parts."""
    side, colors, _, width, layers, heads = SIZES[name]
    network = TransformerConfig(layers, width, heads, side**2, colors, **way["transformer"])
    return Autoregressive(**(way | {"transformer": network}))


class Training:
    """A recipe at work on one thread.

    Args:
        way: arguments of the module.
        planned: steps that its schedule ends with.
    """

    def __init__(self, name: str, way: dict, seed: int, planned: int, batch: int, precise: bool) -> None:
        torch.manual_seed(seed)
        self.model, self.batch, self.precise = model_of(name, way), batch, precise
        self.optimizer = self.model.optimizer_for("32-true" if precise else "bf16-mixed")
        warm_up = min(WARM_UP, planned // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.model.rate_share(warm_up, planned))

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.precise):
            return self.model.transformer(tokens, causal=True)

    def step(self, tokens: torch.Tensor) -> float:
        """One step on some of the tokens `(N, T)`; the processor's seconds."""
        begun = time.process_time()
        chosen = tokens[torch.randint(len(tokens), (self.batch,))]
        next_pixel_loss(self.logits(chosen), chosen).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return time.process_time() - begun

    @torch.no_grad()
    def loss(self, tokens: torch.Tensor) -> float:
        """Nats per pixel of some of the tokens."""
        scored = tokens[torch.linspace(0, len(tokens) - 1, min(TESTED, len(tokens))).long()].split(32)
        losses = [next_pixel_loss(self.logits(part), part).item() * len(part) for part in scored]
        return sum(losses) / sum(map(len, scored))


def time_ratio(name: str, tokens: torch.Tensor, batch: int, precise: bool, rounds: int = 15) -> float:
    """Time of a modern step over that of one of the paper's: medians of steps in turn, so that a busy machine counts
    for both; the first two are left out."""
    ways = [Training(name, RECIPES[recipe], 0, 100, batch, precise) for recipe in ("modern", "paper")]
    times = [[way.step(tokens) for way in ways] for _ in range(rounds + 2)][2:]
    modern, paper = np.median(times, axis=0)
    print(f"{name}: a modern step takes {1e3 * modern:.0f} ms, one of the paper's {1e3 * paper:.0f}", flush=True)
    return float(modern / paper)


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
    parser.add_argument("--batch", type=int)
    parser.add_argument("--share", type=float, default=SHARE, help="of the steps, that the modern recipe has")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of the paper's recipe")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--precise", action="store_true", help="float32 in place of bf16-mixed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps, (training, validation) = given.steps or STEPS[given.data], tokens_of(given.data)
    batch, short = given.batch or SIZES[given.data][2], round(given.share * steps)
    ratio = time_ratio(given.data, training, batch, given.precise)

    def run(told: str, way: dict, seed: int, length: int) -> float:
        trained = Training(given.data, way, seed, length, batch, given.precise)
        for _ in range(length):
            trained.step(training)
        loss = trained.loss(validation)
        print(f"{given.data} seed {seed} {told:22} {loss:.4f} nats per pixel after {length} steps", flush=True)
        return loss

    for seed in range(given.first, given.first + given.seeds):
        papers = [run(f"paper, rate {rate:g}", RECIPES["paper"] | {"learning_rate": rate}, seed, steps)
                  for rate in given.rates]  # fmt: skip
        own, loss = run("modern", RECIPES["modern"], seed, short), min(papers)
        found = (
            f"{given.share:.0%} of the steps and {given.share * ratio:.0%} of the time, {own:.4f} against {loss:.4f}"
        )
        print(f"{given.data} seed {seed}: modern {'reaches' if own <= loss else 'misses'} it in {found}", flush=True)
        for part in PARTS if given.without else ():
            run(f"modern but {part}", replaced(part), seed, short)


if __name__ == "__main__":
    main()
