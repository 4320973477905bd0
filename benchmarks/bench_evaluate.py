"""The figures of `igpt evaluate`: 10,000 samples and as many of each control against 10,000 images of 512 features.

    python benchmarks/bench_evaluate.py [--images 2000] [--features 512]

All five rows with near-copies, as the command computes them once it has features; these are not counted. `make bench`
takes 2,000 images; give --images 10000 for the figure that docs/evaluate.md has: two minutes on two cores at most.
"""

import argparse
import time

import torch
from harness import peak_bytes

from igpt.commands.after.evaluate import judge

SETS = ("samples", "test (floor)", "blurred test", "shuffled pixels", "noise")


def features(count: int, width: int, shift: float, seed: int) -> torch.Tensor:
    """Features as a ReLU network has them, of fewer dimensions than numbers."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    return torch.relu((torch.randn(count, 64, generator=rng) + shift) @ mix / 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--features", type=int, default=512)
    options = parser.parse_args()
    sets = {name: features(options.images, options.features, 0.1 * at, at) for at, name in enumerate(SETS)}
    training = features(options.images, options.features, 0.1, 9)
    started, used = time.perf_counter(), time.process_time()
    judge(sets, training, 0)
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - used
    print(
        f"{len(sets)} rows of {options.images:,} against as many, {options.features} features: {seconds:.1f} s, "
        f"{core_seconds:.1f} core seconds on {torch.get_num_threads()} threads, {peak_bytes() / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
