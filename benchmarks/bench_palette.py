"""Palette of the 546,560 pixels of scikit-learn's two sample photos at k = 512: igpt beside scikit-learn's KMeans.

    python benchmarks/bench_palette.py [--rounds 1]

The same pixels, counting included, one start each. The mean squared error of both palettes is in the row; igpt's may be
at most 2 % above the other, or the times would be of different work.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import Work, arguments, igpt_side, measure, peer_side
from results import row, save_rows
from sklearn.datasets import load_sample_images

from igpt.palette import ColorCounts, Palette, fit_palette, palette_quality

K = 512
AT_LEAST = 12.0
MOST_ERROR = 1.02  # of the peer's


def photos() -> list[np.ndarray]:
    return list(load_sample_images().images)


def counted() -> ColorCounts:
    counts = ColorCounts()
    for photo in photos():
        counts.add(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None])
    return counts


def fit_igpt(k: int) -> Palette:
    return fit_palette(counted(), k)


def fit_sklearn(k: int) -> Palette:
    from sklearn.cluster import KMeans

    pixels = np.concatenate([photo.reshape(-1, 3) for photo in photos()]).astype(np.float32)
    fitted = KMeans(k, init="k-means++", n_init=1, random_state=0).fit(pixels)
    return Palette(torch.from_numpy(fitted.cluster_centers_ / 127.5 - 1).float().clamp(-1, 1))


def palette_work(fit: Callable[[int], Palette]) -> Work:
    found = [fit(2)]  # loads libraries before the clock runs

    def one_round() -> float:
        found[:] = [fit(K)]
        return 1

    def check() -> dict[str, Any]:
        return {"mse": np.array(palette_quality(found[0], counted())[0]["mse"] or 0.0)}

    return Work(one_round, check, late=True)


def main() -> None:
    options = arguments(__doc__, rounds=1).parse_args()
    sides = [igpt_side("igpt", palette_work, fit_igpt), peer_side("scikit-learn KMeans", palette_work, fit_sklearn)]
    found = measure(sides, options.rounds, warmup=0)
    ours, peer = found["igpt"], found["scikit-learn KMeans"]
    errors = [float(side.found["mse"]) for side in (ours, peer)]
    if not errors[0] <= MOST_ERROR * errors[1]:
        raise SystemExit(
            f"igpt's palette has an error of {errors[0]:.2f}, the other {errors[1]:.2f}; not the same work"
        )
    note = f"mean squared error {errors[0]:.2f} and {errors[1]:.2f}"
    save_rows(options.results, [row("palette of 512 colours", "palettes", ours, peer, at_least=AT_LEAST, note=note)])


if __name__ == "__main__":
    main()
