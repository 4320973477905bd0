"""Training from token shards beside training from the same images in memory, digits size, bfloat16.

    python benchmarks/bench_shards.py [--rounds 5] [--steps 60]

What is asked for, at most 2 % more time a step, is less than a machine drifts from one second to the next. So here, as
in no other benchmark, both sides live in one process and take turns step by step on one network; a round's figure is
the median of its steps. The digits size is the hardest case: no other has so little to compute for each image.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Measured, apart, arguments, keep_freed_memory, peak_bytes, threads
from networks import SIZES, igpt_module
from results import row, save_rows
from through_trainer import RandomImages, colors_of

from igpt.commands.before.tokenize import tokenize
from igpt.data import ImageDataModule
from igpt.modules import Autoregressive
from igpt.palette import Palette
from igpt_datamodules import TokenShards

SIZE = "digits"
AT_LEAST = 1 / 1.02
SHARDS, MEMORY = "TokenShards", "images in memory"


def rates_of(steps: int, rounds: int) -> tuple[dict[str, list[float]], int, int]:
    """Images per second of each side and round, the most memory held, and the threads."""
    keep_freed_memory()
    config, batch = SIZES[SIZE]
    with tempfile.TemporaryDirectory() as folder:
        palette, shards = Path(folder) / "palette.npy", Path(folder) / "shards"
        Palette(colors_of(config.vocab_size) / 127.5 - 1).save(palette)
        images = RandomImages(round(config.n_positions**0.5), batch, config.vocab_size)
        tokenize(images, str(palette), str(shards), workers=1)
        tokens = TokenShards(str(shards), batch)
        module = igpt_module(config, palette=str(palette)).train()
        check(module, images, tokens)
        step = step_of(module)
        feeds = {name: forever(data) for name, data in ((SHARDS, tokens), (MEMORY, images))}
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for number in range(rounds + 1):
            seconds = in_turn({name: lambda feed=feed: step(next(feed)) for name, feed in feeds.items()}, steps)
            for name, found in seconds.items() if number else ():  # the first one warms up
                rates[name].append(batch / float(np.median(found)))
    return rates, peak_bytes(), threads()


def check(module: Autoregressive, images: ImageDataModule, tokens: ImageDataModule) -> None:
    """Both sides train on the same tokens.

    Raises:
        SystemExit: they do not, so their times are of different work.
    """
    pairs = []
    for data in (images, tokens):
        data.setup()
        pairs.append(module.encode(torch.stack([data.images("train")[index][0] for index in range(64)])))
    if not torch.equal(*pairs):
        raise SystemExit("the shards hold other tokens than the images; not the same work")


def step_of(module: Autoregressive) -> Callable[[Any], None]:
    adam = torch.optim.Adam(module.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    rng = torch.Generator()

    def step(batch: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(module.encode(batch[0]), rng)
        loss.backward()
        adam.step()
        adam.zero_grad()

    return step


def forever(data: ImageDataModule) -> Iterator[Any]:
    """The training loader's batches, epoch after epoch."""
    loader = data.train_dataloader()
    while True:
        yield from loader


def in_turn(sides: dict[str, Callable[[], None]], steps: int) -> dict[str, list[float]]:
    """Seconds of each step of each side, one step of one, one of the other."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(steps):
        for name, step in sides.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=60, help="steps a round and side")
    options = parser.parse_args()
    rates, peak, threads_used = apart(rates_of, options.steps, options.rounds)
    ours, peer = (Measured(name, rates[name], peak_bytes=peak, threads=threads_used) for name in (SHARDS, MEMORY))
    note = f"{100 * (peer.rate / ours.rate - 1):+.1f} % time a step; in one process, step by step; the same tokens"
    one = row(f"training from shards, {SIZE}", "images", ours, peer, at_least=AT_LEAST, note=note)
    save_rows(options.results, [one])


if __name__ == "__main__":
    main()
