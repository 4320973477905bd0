"""A training step on a quiet machine and beside two busy processes, by how OpenMP's threads wait for work.

    python benchmarks/busy.py [--seconds 8] [--rounds 3] [--others 0 2]

"igpt" is what the commands set (`igpt.system.wait_briefly`). The two others train the same network, with OpenMP's
own default of spinning. The ways are tried in turn; each process sees the environment before it imports torch.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager

from igpt.system import BLOCKTIME, SPINS

SHAPE = {"n_layers": 4, "d_model": 64, "n_heads": 4, "n_positions": 196, "vocab_size": 64}
BATCH, FOREVER = 32, 3600
WAYS = {
    "OpenMP's default": {},
    "igpt": {"GOMP_SPINCOUNT": SPINS, "KMP_BLOCKTIME": BLOCKTIME},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}


def train(seconds: float) -> None:
    """Train for so long, and print the median of the steps in milliseconds."""
    import time

    import torch

    from igpt.model import PixelTransformer, TransformerConfig, next_pixel_loss
    from igpt.system import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    model = PixelTransformer(TransformerConfig(**SHAPE))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    tokens = torch.randint(0, SHAPE["vocab_size"], (BATCH, SHAPE["n_positions"]))
    steps, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(steps) < 3:
        started = time.perf_counter()
        next_pixel_loss(model(tokens, causal=True), tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - started)
    print(1000 * statistics.median(steps[1:]))


def started(seconds: float, way: dict[str, str]) -> subprocess.Popen[str]:
    """A process of its own that trains."""
    named = {name for one in WAYS.values() for name in one}
    clean = {name: value for name, value in os.environ.items() if name not in named}
    command = [sys.executable, __file__, "--train", str(seconds)]
    return subprocess.Popen(command, env=clean | way, stdout=subprocess.PIPE, text=True)


@contextmanager
def beside(count: int):
    """So many busy processes."""
    others = [started(FOREVER, WAYS["OpenMP's default"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def compare(others: int, rounds: int, seconds: float) -> None:
    """Print each way's median over the rounds, and the ratio of each round to OpenMP's default."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    with beside(others):
        for _ in range(rounds):
            for name, way in WAYS.items():
                found[name].append(float(started(seconds, way).communicate()[0]))
    print(f"beside {others} busy processes" if others else "quiet")
    default = found["OpenMP's default"]
    for name, times in found.items():
        ratios = sorted(one / other for one, other in zip(default, times, strict=True))
        print(f"  {name:24} {statistics.median(times):8.1f} ms, {statistics.median(ratios):5.2f} times as fast "
              f"({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 2], help="busy processes beside it")
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
    else:
        for others in options.others:
            compare(others, options.rounds, options.seconds)
