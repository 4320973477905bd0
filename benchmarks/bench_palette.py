"""Palette of the 546,560 pixels of scikit-learn's two sample photos at k = 512: igpt beside scikit-learn's KMeans.

    python benchmarks/bench_palette.py [--repeats 3]

Both in turn in one process (A B A B ...), the same pixels, counting included; the last line is the ratio of medians.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images

from igpt.counting import ColorCounts
from igpt.palette import fit_palette, palette_quality

K = 512


def ours(photos: list[np.ndarray], seed: int) -> tuple[float, float]:
    started = time.perf_counter()
    counts = ColorCounts()
    for photo in photos:
        counts.add(torch.from_numpy(photo).permute(2, 0, 1)[None])
    palette = fit_palette(counts, K, seed)
    seconds = time.perf_counter() - started
    return seconds, float(palette_quality(palette, counts)["mse"] or 0)


def theirs(photos: list[np.ndarray], seed: int) -> tuple[float, float]:
    started = time.perf_counter()
    pixels = np.concatenate([photo.reshape(-1, 3) for photo in photos]).astype(np.float32)
    fitted = KMeans(K, init="k-means++", n_init=1, random_state=seed).fit(pixels)
    return time.perf_counter() - started, fitted.inertia_ / len(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    photos = list(load_sample_images().images)
    ours(photos, 0)  # load libraries before the clock runs
    times: dict[str, list[float]] = {"igpt": [], "scikit-learn": []}
    for seed in range(repeats):
        for name, run in (("igpt", ours), ("scikit-learn", theirs)):
            seconds, mse = run(photos, seed)
            times[name].append(seconds)
            print(f"seed {seed}  {name:13} {seconds:7.2f} s   mse {mse:.2f}", flush=True)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    spread = {name: f"{min(values):.2f} to {max(values):.2f} s" for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:13} median {median:.2f} s ({spread[name]})")
    print(f"ratio {medians['scikit-learn'] / medians['igpt']:.1f} x")


if __name__ == "__main__":
    main()
