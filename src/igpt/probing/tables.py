"""Probe results as JSON, CSV, text and a plot."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igpt.files import atomic_path
from igpt.probing.protocol import LayerResult, best_layer


def write_results(out: Path, results: list[LayerResult], pixels: LayerResult, protocol: dict[str, Any]) -> None:
    """Write probe.json, probe.csv and layers.png into `out`; `pixels` is the same probe on raw pixels."""
    best = best_layer(results)
    content = {
        **protocol,
        "best_layer": best.layer,
        "best_test_accuracy": best.test_accuracy,
        "raw_pixels": {k: v for k, v in asdict(pixels).items() if k != "layer"},
        "layers": [asdict(result) for result in results],
    }
    with atomic_path(out / "probe.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")
    with atomic_path(out / "probe.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(results[0])))
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)
    with atomic_path(out / "layers.png") as path:
        plot(results, pixels, path)


def text_table(results: list[LayerResult], pixels: LayerResult) -> str:
    """The table that `igpt probe` prints; the best layer by validation accuracy is marked."""
    best = best_layer(results)
    lines = ["  layer   strength   val      test"]
    for result in results:
        mark = "  <- best on validation" if result is best else ""
        lines.append(
            f"  {result.layer:>5}   {result.strength:8.0e}   {result.val_accuracy:.4f}   "
            f"{result.test_accuracy:.4f}{mark}"
        )
    lines.append(f" pixels   {pixels.strength:8.0e}   {pixels.val_accuracy:.4f}   {pixels.test_accuracy:.4f}")
    return "\n".join(lines)


def plot(results: list[LayerResult], pixels: LayerResult, path: Path) -> None:
    """Accuracy against layer, as figure 2 of the paper, with raw pixels as a line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    layers = [result.layer for result in results]
    axes.plot(layers, [100 * r.test_accuracy for r in results], "o-", label="test")
    axes.plot(layers, [100 * r.val_accuracy for r in results], "s--", alpha=0.6, label="validation")
    axes.axhline(100 * pixels.test_accuracy, color="grey", linestyle=":", label="raw pixels, test")
    best = best_layer(results)
    axes.plot([best.layer], [100 * best.test_accuracy], "*", markersize=16, color="tab:red", label="best on validation")
    axes.set_xlabel("layer (0: input of the first block)")
    axes.set_ylabel("linear probe accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
