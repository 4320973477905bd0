"""The figures of the page; each comes with what it shows in words."""

from typing import Any

from igpt.report.content import Image
from igpt.report.drawing import Theme, described, image, plain, plain_lines, styles
from igpt.report.events import thinned
from igpt.report.groups import Kind, group, kind_of, labels, shape
from igpt.report.pairing import CORES, probe_accuracy, probed_sides, shared_method, trace, tuned_accuracy, tuned_sides
from igpt.report.pairing import values as measured
from igpt.report.records import MethodResult, Point, Probe, Run
from igpt.report.statistics import deviation, mean

POINTS = 300  # of a curve, so that long runs do not make large files


def legend_names(groups: dict[Kind, list[Run]]) -> dict[Kind, str]:
    """A kind's entry in legends: the run's name where it is alone, else the kind and how many."""
    names = labels(list(groups))
    return {k: of[0].name if len(of) == 1 else f"{names[k]} ({len(of)} runs)" for k, of in groups.items()}


def loss_curves(runs: list[Run]) -> list[Image]:
    """Training and validation loss of all runs; fine-tuning has a figure of its own, since its loss is another."""
    having = [run for run in runs if run.curve("train/loss") or run.curve("val/loss")]
    parts = [[run for run in having if (run.objective == "Joint") == joint] for joint in (False, True)]
    about = [
        ("Pre-training", "nats per pixel", "AR counts all pixels, BERT the masked ones."),
        ("Fine-tuning", "weighted L_GEN + L_CLF, nats", "The weight is that of the run; 0 leaves L_CLF alone."),
    ]
    return [loss_figure(part, *words) for part, words in zip(parts, about, strict=True) if part]


def loss_figure(runs: list[Run], title: str, unit: str, note: str) -> Image:
    """Loss against steps."""
    groups = group(runs)
    names = legend_names(groups)

    def draw(axes: Any, theme: Theme) -> None:
        style = styles(list(groups), theme)
        for kind, members in groups.items():
            for run in members:
                train, val = (thinned(run.curve(f"{name}/loss"), POINTS) for name in ("train", "val"))
                axes.plot(*xy(train), color=style[kind]["color"], alpha=0.35, linewidth=0.9)
                axes.plot(*xy(val), **style[kind], markersize=3.5, linewidth=1.4, label=plain(names[kind]))
        axes.set(xlabel="optimizer steps", ylabel=unit)

    ends = [f"{run.name} ends at {last(run.curve('val/loss'))}" for run in runs]
    caption = f"Training loss thin, validation loss with marks. {note}"
    return image(title, draw, len(groups), described(f"{title}: loss against optimizer steps", ends), caption)


def xy(points: list[Point]) -> tuple[list[int], list[float]]:
    """Steps and values."""
    return [point.step for point in points], [point.value for point in points]


def last(points: list[Point]) -> str:
    """The last value of a curve, in words."""
    return f"{points[-1].value:.3f}" if points else "an unknown loss"


def layer_curves(runs: list[Run]) -> list[Image]:
    """Probe accuracy against layer, one line a run, one figure a method (figure 2 of the paper)."""
    methods = sorted({name for run in runs if run.probe for name in run.probe.methods})
    return [
        layer_figure([run for run in runs if run.probe and method in run.probe.methods], method) for method in methods
    ]


def layer_figure(runs: list[Run], method: str) -> Image:
    """Accuracy against layer under one method."""
    groups = group(runs)
    names = legend_names(groups)
    results = [(run, run.probe.methods[method]) for run in runs if run.probe]

    def draw(axes: Any, theme: Theme) -> None:
        from matplotlib.ticker import MaxNLocator

        style = styles(list(groups), theme)
        for run, result in results:
            kind = kind_of(run)
            draw_layers(axes, result, style[kind], plain(names[kind]))
            if result.raw_pixels:
                pixels = 100 * result.raw_pixels.test
                axes.axhline(pixels, color=theme.ink, linestyle=":", linewidth=1.2, label="raw pixels")
        axes.set(xlabel="layer (0: input of the first block)", ylabel="test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    best = [f"{run.name} is best at layer {r.best_layer} with {100 * r.best.test:.1f} %" for run, r in results]
    caption = "Last probed checkpoint of each run. The ring marks the layer that validation chose."
    title = f"Accuracy against layer, {method}"
    return image(title, draw, len(groups) + 1, described(f"Probe accuracy against layer, {method}", best), caption)


def draw_layers(axes: Any, result: MethodResult, style: dict[str, str], label: str) -> None:
    """One run's line, and a ring around its best layer."""
    layers = sorted(result.layers, key=lambda score: score.layers)
    numbers = [score.layers[0] for score in layers]
    axes.plot(numbers, [100 * score.test for score in layers], **style, markersize=4, linewidth=1.5, label=label)
    ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.5, "linestyle": "none"}
    axes.plot([result.best_layer], [100 * result.best.test], **ring, markeredgecolor=style["color"])


def loss_against_accuracy(runs: list[Run]) -> Image | None:
    """Validation loss against best-layer accuracy over the checkpoints of each run (figure 3 of the paper)."""
    traces = {run.name: trace(run) for run in runs if run.objective != "Joint"}
    groups = group([run for run in runs if traces.get(run.name)])
    if not groups:
        return None

    def draw(axes: Any, theme: Theme) -> None:
        style, names = styles(list(groups), theme), legend_names(groups)
        for kind, members in groups.items():
            for run in members:
                losses = [loss for _, loss in traces[run.name]]
                accuracies = [100 * probe.result.best.test for probe, _ in traces[run.name]]
                label = plain(names[kind])
                axes.plot(losses, accuracies, **style[kind], markersize=5, linewidth=1.2, label=label)
        axes.set(xlabel="validation loss, nats per pixel (lower to the right)", ylabel="best layer's accuracy, %")
        axes.invert_xaxis()

    parts = [
        f"{run.name} from {at(*steps[0])} to {at(*steps[-1])}"
        for members in groups.values()
        for run in members
        if (steps := traces[run.name])
    ]
    caption = "One mark a checkpoint. AR's and BERT's losses are different quantities: compare along a line only."
    about = described("Validation loss against probe accuracy", parts)
    return image("Accuracy against loss", draw, len(groups), about, caption)


def at(probe: Probe, loss: float) -> str:
    """One checkpoint in words."""
    return f"{loss:.3f} nats and {100 * probe.result.best.test:.1f} %"


def objectives(runs: list[Run]) -> Image | None:
    """AR beside BERT: best probe and fine-tuned accuracy (figure 4 of the paper)."""
    method = shared_method(runs)
    probed, tuned = probed_sides(runs, method), tuned_sides(runs)
    bars = []
    for place in dict.fromkeys([*probed, *tuned]):
        for way, found, measure in (
            (f"probe ({method})", probed, probe_accuracy(method)),
            ("fine-tuned", tuned, tuned_accuracy),
        ):
            of = {side: measured(members, measure) for side, members in found.get(place, {}).items()}
            if of:
                bars.append((f"{place[0]}\n{way}", shape(place[1]), of))
    sides = sorted({side for _, _, of in bars for side in of}, key=lambda side: (side not in CORES, side))
    if not set(CORES) & set(sides):
        return None

    def draw(axes: Any, theme: Theme) -> None:
        for place, (_, _, of) in enumerate(bars):
            for index, side in enumerate(side for side in sides if side in of):
                x = place + 0.26 * (index - (len(of) - 1) / 2)
                draw_bar(axes, x, of[side], side, theme.colors[sides.index(side)], theme)
        axes.set(xticks=range(len(bars)), xticklabels=[plain_lines(name) for name, _, _ in bars])
        axes.set(ylabel="test accuracy, %", ylim=(0, 112), yticks=range(0, 101, 20))
        axes.grid(visible=False, axis="x")

    parts = [
        f"{name.replace(chr(10), ' ')}, {side} {100 * mean(found):.1f} %"
        for name, _, of in bars
        for side, found in of.items()
    ]
    caption = (
        "Mean over runs of the recipe that is best on validation; the line is the standard deviation, where several."
    )
    return image("AR beside BERT", draw, len(sides), described("AR beside BERT", parts), caption)


def draw_bar(axes: Any, x: float, found: list[float], side: str, color: str, theme: Theme) -> None:
    """One bar with its deviation and its number."""
    height, spread = 100 * mean(found), 100 * (deviation(found) or 0.0)
    axes.bar([x], [height], width=0.24, color=color, label=plain(side), alpha=0.9)
    if spread:
        axes.errorbar([x], [height], yerr=[spread], color=theme.ink, capsize=3, linewidth=1.1)
    axes.text(x, height + spread + 1.5, f"{height:.1f}", ha="center", va="bottom", fontsize=8.5)
