"""Draws what one position sees under each pattern of attention: docs/images/attention.png.

python benchmarks/draw_patterns.py [--out docs/images/attention.png]
"""

import argparse
import itertools

import numpy as np
import torch
from matplotlib.figure import Figure

from igpt.model.attention.patterns import patterns_of
from igpt.model.attention.places import Picture

SIDE, ROW, COLUMN = 12, 6, 5
SHOWN = [
    {"pattern": "dense"},
    {"pattern": "rows", "k": 2},
    {"pattern": "window", "k": 2},
    {"pattern": "axial"},
    {"pattern": "strided"},
    {"pattern": "fixed", "c": 3},
]
WHITE, SEEN, OWN = (1, 1, 1), (0.3, 0.55, 0.85), (0.85, 0.2, 0.15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="docs/images/attention.png")
    place = torch.arange(SIDE**2)
    patterns = list(itertools.chain(*patterns_of(SHOWN)))
    figure = Figure(figsize=(1.7 * len(patterns), 4), layout="constrained")
    axes = figure.subplots(2, len(patterns))
    query = torch.tensor(ROW * SIDE + COLUMN)
    for row, causal in enumerate((True, False)):
        picture = Picture(place // SIDE, place % SIDE, (SIDE, SIDE), causal)
        for axis, pattern in zip(axes[row], patterns, strict=True):
            colors = np.where(picture.seen(pattern, query, place).view(SIDE, SIDE, 1), SEEN, WHITE)
            colors[ROW, COLUMN] = OWN
            axis.imshow(colors)
            axis.set_xticks(np.arange(-0.5, SIDE), [])
            axis.set_yticks(np.arange(-0.5, SIDE), [])
            axis.tick_params(length=0)
            axis.grid(color="0.75", linewidth=0.5)
            if causal:
                words = {key: value for key, value in pattern.to_dict().items() if value is not None}
                name = words.pop("pattern")
                axis.set_title(", ".join([name, *(f"{key}: {value}" for key, value in words.items())]), fontsize=8)
        axes[row][0].set_ylabel("AR" if causal else "BERT")
    figure.savefig(parser.parse_args().out, dpi=110)


if __name__ == "__main__":
    main()
