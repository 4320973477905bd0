"""The figures and pictures of the page; each says in words what it shows."""

import io
import re
from collections.abc import Callable
from functools import partial
from itertools import cycle, pairwise
from statistics import fmean
from typing import Any, NamedTuple

import torch
from PIL import Image as Pil
from torch.nn import functional as F

from igpt.data import decode_rgb, draw_confusion, sampling_error
from igpt.palette import Palette
from igpt.report.comparing import (
    ATTENTIVE,
    CORES,
    METHODS,
    Kind,
    any_family,
    group,
    kind_of,
    labels,
    probed_sides,
    std,
    trace,
    tuned_sides,
)
from igpt.report.published import WORDS
from igpt.report.schema import Point, Run
from igpt.system import percent

WIDTH, HEIGHT = 5.4, 3.4  # inches without the legend; letters stay readable on a phone
POINTS = 300  # of a curve, so that long runs do not make large files
COLORS = ("#2b6cb0", "#c2571a", "#2f855a", "#a0307c", "#6546b8", "#0e7c94", "#8a6a12", "#5b6675")
MARKS = "os^Dv*PX<>"
INK = "#333d4b"
BUDGET = 2_500_000  # bytes of all samples and completions together, so that the page stays below 5 MB
COLUMNS, WIDE = 32, 576  # colours in a row of the palette's picture, and its width in pixels at most
LUMA = torch.tensor((0.299, 0.587, 0.114))


class Image(NamedTuple):
    """A picture that says in words what it shows: a chart (SVG), else pixels that the page keeps square (PNG)."""

    title: str
    content: bytes
    alt: str
    caption: str
    chart: bool = False


def chart(name: str, draw: Callable[[Any], None], parts: list[str], height: float = HEIGHT, **known: object) -> Image:
    """What `draw` draws on matplotlib axes, as SVG, with a legend below; the same records give the same bytes.

    Args:
        name: of its title, caption and axes in words.yaml, which `known` fills in.
        draw: takes the axes.
        parts: what it shows, in words.
        height: in inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    words, buffer = WORDS["figures"][name], io.BytesIO()
    with rc_context(WORDS["style"]):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set(**words["axes"])
        handles, names = axes.get_legend_handles_labels()
        entries = dict(zip(reversed(names), reversed(handles), strict=True))  # each once
        figure.set_size_inches(WIDTH, height + 0.22 * len(entries))
        figure.legend([*entries.values()][::-1], [*entries][::-1], loc="outside lower center", fontsize=9.5)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    title, about = (words[part].format(**known) for part in ("title", "about"))
    more = f"; and {len(parts) - 8} more" if len(parts) > 8 else ""
    return Image(title, buffer.getvalue(), f"{about}: {'; '.join(parts[:8])}{more}.", words["caption"], chart=True)


def plain(text: str) -> str:
    """Text that matplotlib draws as it stands: no formulas, no letters that its font lacks, not too long."""
    short = text if len(text) <= 38 else f"{text[:35]}..."
    return re.sub(r"^_", " _", re.sub(r"[^\x20-\x7e\xa0-\xff]", "?", short).replace("$", r"\$"))


def styles(runs: list[Run]) -> dict[Kind, dict[str, Any]]:
    """Colour, mark and legend entry of every kind; AR and BERT keep their colours whatever else is there."""
    groups, found = group(runs), {}
    free = cycle(zip(COLORS[2:], MARKS[2:], strict=False))
    fixed = dict(zip(CORES, zip(COLORS, MARKS, strict=False), strict=False))
    for kind, name in labels(groups).items():
        color, mark = fixed.pop(kind.objective) if kind.objective in fixed else next(free)
        of = groups[kind]
        label = plain(of[0].name if len(of) == 1 else f"{name} ({len(of)} runs)")
        found[kind] = {"color": color, "marker": mark, "label": label, "linewidth": 1.4, "markersize": 4}
    return found


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most `most` points: means of as many runs of neighbours, each at its last step."""
    if len(points) <= most:
        return points
    edges = pairwise(round(index * len(points) / most) for index in range(most + 1))
    groups = [points[first:last] for first, last in edges]
    return [Point(part[-1].step, fmean(point.value for point in part)) for part in groups]


def loss_curves(runs: list[Run]) -> list[Image]:
    """Training and validation loss; fine-tuning has a figure of its own, since its loss is another."""
    having = [run for run in runs if run.curve("train/loss") or run.curve("val/loss")]
    tuned = [run for run in having if run.objective == "Joint"]
    kinds = {"pre_training": [run for run in having if run.objective != "Joint"], "fine_tuning": tuned}
    return [loss_figure(name, of) for name, of in kinds.items() if of]


def loss_figure(name: str, runs: list[Run]) -> Image:
    """Loss against steps."""

    def draw(axes: Any) -> None:
        style = styles(runs)
        for run in runs:
            of = style[kind_of(run)]
            for split, look in (("train", {"color": of["color"], "alpha": 0.35, "linewidth": 0.9}), ("val", of)):
                points = thinned(run.curve(f"{split}/loss"), POINTS)
                axes.plot([point.step for point in points], [point.value for point in points], **look)

    ends = [(run.name, run.curve("val/loss")) for run in runs]
    parts = [f"{run} ends at {f'{curve[-1].value:.3f}' if curve else 'an unknown loss'}" for run, curve in ends]
    return chart(name, draw, parts)


def layer_curves(runs: list[Run]) -> list[Image]:
    """Probe accuracy against layer, one line a run, one figure a method (figure 2 of the paper)."""
    methods = sorted({name for run in runs if run.probe for name in run.probe.methods})
    return [layer_figure([run for run in runs if run.probe and name in run.probe.methods], name) for name in methods]


def layer_figure(runs: list[Run], method: str) -> Image:
    """Accuracy against layer under one method."""
    results = [(run, run.probe.images.get("test"), run.probe.methods[method]) for run in runs if run.probe]

    def draw(axes: Any) -> None:
        style = styles(runs)
        for run, images, result in results:
            of = style[kind_of(run)]
            scores = sorted((score.layer or 0, 100 * score.test_accuracy) for score in result.layers)
            bars = [100 * sampling_error(score / 100, images) for _, score in scores] if images else None
            axes.errorbar(*zip(*scores, strict=True), yerr=bars, capsize=2, **of)
            ring = {"s": 120, "facecolors": "none", "edgecolors": of["color"], "linewidths": 1.5}
            axes.scatter([result.best_layer], [100 * result.best.test_accuracy], **ring)
            if result.raw_pixels:
                raw = 100 * result.raw_pixels.test_accuracy
                axes.axhline(raw, color=INK, linestyle=":", linewidth=1.2, label="raw pixels")
        axes.xaxis.get_major_locator().set_params(integer=True)

    parts = [f"{run.name} is best at layer {of.best_layer} with {percent(of.best.test_accuracy)}"
             for run, _, of in results]  # fmt: skip
    return chart("layers", draw, parts, method=method)


def depth_curves(runs: list[Run]) -> Image | None:
    """Probe accuracy against relative depth, one line a run, of networks of several families."""
    known = [(run, run.probe.result) for run in runs if run.probe and run.objective != "Joint"]
    if not any_family(runs) or not known:
        return None
    deep = [(run, of, max(score.layer or 0 for score in of.layers) or 1) for run, of in known]

    def draw(axes: Any) -> None:
        style = styles(runs)
        for run, of, last in deep:
            scores = sorted(((score.layer or 0) / last, 100 * score.test_accuracy) for score in of.layers)
            axes.plot(*zip(*scores, strict=True), **style[kind_of(run)])
            if of.raw_pixels:
                axes.axhline(
                    100 * of.raw_pixels.test_accuracy, color=INK, linestyle=":", linewidth=1.2, label="raw pixels"
                )

    parts = [f"{run.name} is best at {of.best_layer / last:.2f} of its depth with {percent(of.best.test_accuracy)}"
             for run, of, last in deep]  # fmt: skip
    return chart("depth", draw, parts)


def loss_against_accuracy(runs: list[Run]) -> Image | None:
    """Validation loss against best-layer accuracy over the checkpoints of each run (figure 3 of the paper)."""
    known = [(run, trace(run)) for run in runs]
    traces = [(run, [(loss, 100 * probe.result.best.test_accuracy) for probe, loss in of]) for run, of in known if of]
    if not any(len(points) > 1 for _, points in traces):
        return None

    def draw(axes: Any) -> None:
        style = styles([run for run, _ in traces])
        for run, points in traces:
            axes.plot(*zip(*points, strict=True), **style[kind_of(run)])
        axes.invert_xaxis()

    ends = [(run.name, [f"{loss:.3f} nats and {value:.1f} %" for loss, value in points]) for run, points in traces]
    parts = [f"{name} from {points[0]} to {points[-1]}" for name, points in ends]
    return chart("loss_and_accuracy", draw, parts)


def objectives(runs: list[Run]) -> Image | None:
    """AR beside BERT: best probe and fine-tuned accuracy (figure 4 of the paper)."""
    probes = (probed_sides(runs, methods) for methods in (METHODS, ATTENTIVE))
    ways = {**{f"probe ({method})": probed for method, probed in probes}, "fine-tuned": tuned_sides(runs)}
    places = dict.fromkeys(place for found in ways.values() for place in found)
    bars = [
        (f"{place[0]}\n{way}", {side: [100 * v for v in of.accuracies] for side, of in found[place].items()})
        for place in places for way, found in ways.items() if place in found
    ]  # fmt: skip
    sides = sorted({side for _, of in bars for side in of}, key=lambda side: (side not in CORES, side))
    if not set(CORES) & set(sides) or sum(len(of) for _, of in bars) < 2:
        return None

    def draw(axes: Any) -> None:
        color = dict(zip(sides, cycle(COLORS), strict=False))
        for place, (_, of) in enumerate(bars):
            apart = min(0.26, 0.9 / len(of))
            for index, side in enumerate(side for side in sides if side in of):
                x = place + apart * (index - (len(of) - 1) / 2)
                style = {"color": color[side], "label": plain(side), "alpha": 0.9, "ecolor": INK}
                bar = axes.bar([x], [fmean(of[side])], width=0.92 * apart, yerr=std(of[side]), capsize=3, **style)
                axes.bar_label(bar, fmt="%.1f", padding=2, fontsize=8.5)
        names = ["\n".join(map(plain, name.split("\n"))) for name, _ in bars]
        axes.set(xticks=range(len(bars)), xticklabels=names, ylim=(0, 112), yticks=range(0, 101, 20))
        axes.grid(visible=False, axis="x")

    means = [(name.replace("\n", " "), side, fmean(found)) for name, of in bars for side, found in of.items()]
    parts = [f"{name}, {side} {value:.1f} %" for name, side, value in means]
    return chart("objectives", draw, parts)


def confusions(runs: list[Run]) -> list[Image]:
    """Which class was taken for which, in per cent of each true class, for every fine-tuned run whose test kept it."""
    images = []
    for run, test, found in ((run, run.test, run.test.confusion) for run in runs if run.test and run.test.confusion):
        counts = torch.tensor(found.counts)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        wrong = sorted(((float(shares[i, j]), i, j) for i, j in counts.nonzero().tolist() if i != j), reverse=True)
        names = found.classes if len(found.classes) == len(counts) else list(map(str, range(len(counts))))
        most = [f"{names[i]} taken for {names[j]} in {percent(value)}" for value, i, j in wrong]
        draw = partial(draw_confusion, counts=counts, names=names)
        parts, of = most or ["every image is right"], test.checkpoint
        images.append(chart("confusion", draw, parts, WIDTH, run=run.name, checkpoint=of, step=test.step))
    return images


def palettes(runs: list[Run]) -> list[Image]:
    """One picture for every different palette, colours by lightness, in rows; what is left of the last is empty."""
    owners: dict[str, list[Run]] = {}
    for run in runs:
        if run.palette is not None:
            owners.setdefault(Palette(run.palette).sha256, []).append(run)
    images = []
    for members in owners.values():
        rgb = Palette(members[0].palette).rgb()  # type: ignore[arg-type]
        columns = min(COLUMNS, len(rgb))
        rows, side = -(-len(rgb) // columns), WIDE // columns
        canvas = torch.zeros(rows * columns, 4, dtype=torch.uint8)
        canvas[: len(rgb)] = F.pad(rgb[(rgb.float() @ LUMA).argsort(stable=True)], (0, 1), value=255)
        picture = Pil.fromarray(canvas.view(rows, columns, 4).numpy(), "RGBA")
        picture = picture.resize((columns * side, rows * min(side, WIDE // 12)), Pil.Resampling.NEAREST)
        names, about = ", ".join(run.name for run in members), f"{len(rgb)} colours by lightness"
        images.append(Image("Palette", png(picture), f"Palette of {names}: {about}", f"{about}; {names}"))
    return images


def png(picture: Pil.Image) -> bytes:
    """Encoded, without anything that a file may have carried besides its pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def drawings(runs: list[Run]) -> list[Image]:
    """Samples, then completions, runs beside each other, within a budget; a file of the run goes before the events."""
    having = [(run, {**run.events.pictures, **run.pictures}) for run in runs]
    found = [(name, run, of[name]) for name in ("samples", "completions") for run, of in having if name in of]
    images = []
    for name, run, picture in found:
        shown = decode_rgb(io.BytesIO(picture.content))
        while len(content := png(shown)) > BUDGET // len(found) and min(shown.size) > 1:
            shown = shown.resize([max(1, side * 2 // 3) for side in shown.size], Pil.Resampling.BOX)
        title = f"{name.capitalize()} of {run.name}"
        images.append(Image(title, content, title, f"{run.core}; {picture.origin}"))
    return images
