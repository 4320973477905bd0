"""The page of a study: its figure, its tables, and in words what they say and what they do not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from igpt.scaling.fits import Law, StudyFit
from igpt.scaling.plan import Planned

INK = "#333d4b"
COLORS = ("#2b6cb0", "#c2571a", "#2f855a", "#a0307c", "#6546b8", "#0e7c94", "#8a6a12", "#5b6675")


class Measure(NamedTuple):
    """One thing that was measured of every run: its name, unit, a value a run, the fit, and how numbers are shown."""

    name: str
    axis: str
    values: Sequence[float]
    fit: StudyFit
    shown: str  # a format, such as ".4f"


def draw(target: Path, runs: Sequence[Planned], measures: Sequence[Measure]) -> None:
    """A row a measure: against parameters, a colour and a parabola a budget; and the best size against compute."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(measures)), layout="constrained")
    for (left, right), measure in zip(figure.subplots(len(measures), 2, squeeze=False), measures, strict=True):
        curves(left, runs, measure)
        optima(right, measure)
    figure.savefig(target, dpi=130)


def curves(axes: Any, runs: Sequence[Planned], measure: Measure) -> None:
    """Points and parabolas; a star where one has its best size."""
    for place, best in enumerate(measure.fit.optima):
        color = COLORS[place % len(COLORS)]
        pairs = zip(runs, measure.values, strict=True)
        points = [(run.parameters, value) for run, value in pairs if run.budget == best.budget]
        sizes, values = zip(*points, strict=True)
        x = np.linspace(np.log(min(sizes)), np.log(max(sizes)), 100)
        axes.plot(sizes, values, "o", color=color, label=f"C = {best.budget:.2g}")
        axes.plot(np.exp(x), np.polyval(best.curve[::-1], x), "-", color=color, linewidth=1.2)
        if best.edge is None:
            axes.plot(best.parameters, best.value, "*", color=color, markersize=14, markeredgecolor=INK)
    axes.set(xscale="log", xlabel="parameters", ylabel=measure.axis, title=f"{measure.name} against parameters")
    axes.legend(fontsize=9)


def optima(axes: Any, measure: Measure) -> None:
    """The best size of each budget with its interval, an open ring at an edge, and the law where there is one."""
    for best in measure.fit.optima:
        span = best.parameters_interval
        bars = None if span is None else [[best.parameters - span[0]], [span[1] - best.parameters]]
        face = "none" if best.edge else INK
        axes.errorbar(best.budget, best.parameters, yerr=bars, fmt="o", color=INK, mfc=face, capsize=3)
    title = "no law: an optimum lies at the edge of the sizes"
    if (law := measure.fit.parameters) is not None:
        compute = np.array([best.budget for best in measure.fit.optima])
        axes.plot(compute, law.factor * compute**law.exponent, "-", color=COLORS[0], linewidth=1.2)
        title = f"N* grows as C^{law.exponent:.2f}"
    axes.set(xscale="log", yscale="log", xlabel="compute C, operations", ylabel="best parameters", title=title)


def plan_table(runs: Sequence[Planned], seconds: Sequence[float] | None = None) -> str:
    """The plan as a Markdown table, with hours where they are known."""
    head = ["run", "budget", "layers", "width", "heads", "parameters", "steps", "tokens", "tokens/parameter", "FLOPs"]
    rows = [
        [run.name, f"{run.budget:.3g}", str(run.n_layers), str(run.d_model), str(run.n_heads), f"{run.parameters:,}",
         f"{run.steps:,}", f"{run.tokens:,}", f"{run.tokens / run.parameters:.3g}", f"{run.operations:.4g}"]
        for run in runs
    ]  # fmt: skip
    if seconds is not None:
        head, rows = [*head, "hours"], [[*row, f"{one / 3600:.3f}"] for row, one in zip(rows, seconds, strict=True)]
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def page(config: str, runs: Sequence[Planned], measures: Sequence[Measure], picture: str) -> str:
    """The whole page as Markdown.

    Args:
        config: that was studied.
        runs: all trainings.
        measures: each with its fit.
        picture: file of the figure, beside the page.
    """
    budgets = len({run.budget for run in runs})
    parts = [f"# Scaling of {config}\n", f"{len(runs)} runs at {budgets} budgets of compute.\n"]
    parts.append(f"![Measures against parameters, and the best size against compute]({picture})\n")
    for measure in measures:
        parts += [f"## {measure.name}\n", optima_table(measure), *(f"{line}\n" for line in words(measure))]
    pairs = zip(*(measure.values for measure in measures), strict=True)
    head = ["run", "parameters", "steps", "tokens", *(measure.name.lower() for measure in measures)]
    rows = [
        [run.name, f"{run.parameters:,}", f"{run.steps:,}", f"{run.tokens:,}",
         *(format(value, measure.shown) for value, measure in zip(values, measures, strict=True))]
        for run, values in zip(runs, pairs, strict=True)
    ]  # fmt: skip
    return "\n".join([*parts, "## Runs\n", markdown(head, rows)])


def optima_table(measure: Measure) -> str:
    """The best size of each budget."""
    rows = []
    for best in measure.fit.optima:
        span = best.parameters_interval
        interval = "-" if span is None else f"{span[0]:,.0f} to {span[1]:,.0f}"
        size = best.edge or f"{best.parameters:,.0f}"
        ratio = "-" if best.edge else f"{best.tokens / best.parameters:.3g}"
        tokens, value = "-" if best.edge else f"{best.tokens:,.0f}", format(best.value, measure.shown)
        rows.append([f"{best.budget:.3g}", size, interval, tokens, ratio, "-" if best.edge else value])
    return markdown(["budget", "best parameters", "95 % interval", "tokens", "tokens/parameter", "value there"], rows)


def words(measure: Measure) -> list[str]:
    """What the fits of a measure say: the laws, or why there is none."""
    fit = measure.fit
    if edges := [best for best in fit.optima if best.edge]:
        budgets = "; ".join(f"C = {best.budget:.3g}: {best.edge}" for best in edges)
        return [f"At {len(edges)} of {len(fit.optima)} budgets the optimum is not inside the sizes that were trained "
                f"({budgets}). No law is claimed; move the sizes by --ratios."]  # fmt: skip
    if fit.parameters is None or fit.tokens is None:
        return ["One budget alone says nothing about growth."]
    return [
        f"Best parameters grow as {exponent(fit.parameters)}, tokens as {exponent(fit.tokens)}. The intervals are of "
        f"the noise about the parabolas, with {fit.freedom} degrees of freedom; one seed was trained."
    ]


def exponent(law: Law) -> str:
    """A law in words."""
    span = law.interval
    known = "no interval: the noise is too large to tell" if span is None else f"95 % {span[0]:.2f} to {span[1]:.2f}"
    return f"C^{law.exponent:.2f} ({known})"
