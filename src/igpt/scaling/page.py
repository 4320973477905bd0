"""The page of a study: its figure, its tables, and in words what they say and what they do not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from igpt.scaling.bootstrap import Array
from igpt.scaling.fits import Law, Optimum, StudyFit, fit_study
from igpt.scaling.plan import Planned

INK = "#333d4b"
LEAST = 1e-12  # of what is taken the logarithm of
COLORS = ("#2b6cb0", "#c2571a", "#2f855a", "#a0307c", "#6546b8", "#0e7c94", "#8a6a12", "#5b6675")


class Measure(NamedTuple):
    """One thing that was measured of every run: its name, unit, a value a run, the fit, and how numbers are shown.

    With `logarithm` the fit is of the values' logarithms, as suits what spans multiples.
    """

    name: str
    axis: str
    values: Sequence[float]
    fit: StudyFit
    shown: str  # a format, such as ".4f"
    logarithm: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        axis: str,
        runs: Sequence[Array],
        values: Sequence[float],
        shown: str,
        maximise: bool = False,
        logarithm: bool = False,
    ) -> "Measure":
        """Fit the values of runs, given as their budgets, parameters and tokens, `(n,)` each."""
        budgets, parameters, tokens = runs
        seen = np.log(np.maximum(values, LEAST)) if logarithm else np.array(values, float)
        return cls(name, axis, values, fit_study(budgets, parameters, tokens, seen, maximise), shown, logarithm)

    def back(self, fitted: Any) -> Any:
        """A value of the fitted curve, in the measure's unit."""
        return np.exp(fitted) if self.logarithm else fitted


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
        axes.plot(np.exp(x), measure.back(np.polyval(best.curve[::-1], x)), "-", color=color, linewidth=1.2)
        if best.edge is None:
            axes.plot(best.parameters, measure.back(best.value), "*", color=color, markersize=14, markeredgecolor=INK)
    height = "log" if measure.logarithm else "linear"
    axes.set(
        xscale="log",
        yscale=height,
        xlabel="parameters",
        ylabel=measure.axis,
        title=f"{measure.name} against parameters",
    )
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
    if len(measures) > 1:
        parts += ["## What each wants\n", wants(measures), *(f"{line}\n" for line in compared(measures))]
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
        ratio = "-" if best.edge else ratio_of(best)
        tokens, value = "-" if best.edge else f"{best.tokens:,.0f}", format(measure.back(best.value), measure.shown)
        rows.append([f"{best.budget:.3g}", size, interval, tokens, ratio, "-" if best.edge else value])
    return markdown(["budget", "best parameters", "95 % interval", "tokens", "tokens/parameter", "value there"], rows)


def ratio_of(best: Optimum) -> str:
    """Tokens a parameter, to three digits at least."""
    ratio = best.tokens / best.parameters
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


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


def wants(measures: Sequence[Measure]) -> str:
    """How each measure would have the size grow, and the best size at the largest budget."""
    rows = []
    for measure in measures:
        fit, last = measure.fit, measure.fit.optima[-1]
        grown = [exponent(law) if law else "no law" for law in (fit.parameters, fit.tokens)]
        ratio = f"C^{fit.tokens.exponent - fit.parameters.exponent:.2f}" if fit.parameters and fit.tokens else "-"
        size = last.edge or f"{last.parameters:,.0f}"
        rows.append([measure.name.lower(), *grown, ratio, size, "-" if last.edge else ratio_of(last)])
    head = [
        "best by",
        "parameters",
        "tokens",
        "tokens/parameter",
        "parameters at the largest budget",
        "tokens/parameter there",
    ]
    return markdown(head, rows)


def compared(measures: Sequence[Measure]) -> list[str]:
    """Whether the growth that each measure wants differs from that of the loss, by their intervals."""
    first, *others = measures
    if first.fit.parameters is None:
        return [f"The {first.name.lower()} has no law to compare with."]
    lines = []
    for other in others:
        law = other.fit.parameters
        if law is None:
            lines.append(f"The {other.name.lower()} has no law: whether it wants other growth is not known.")
            continue
        spans, more = (first.fit.parameters.interval, law.interval), law.exponent - first.fit.parameters.exponent
        apart = all(spans) and (spans[0][0] > spans[1][1] or spans[1][0] > spans[0][1])  # type: ignore[index]
        known = "their intervals lie apart" if apart else "by their intervals they cannot be told apart"
        known = known if all(spans) else "without an interval of both nothing says whether that is noise"
        lines.append(
            f"The {other.name.lower()} wants parameters to grow {'faster' if more > 0 else 'slower'} than the "
            f"{first.name.lower()} does, by {abs(more):.2f} in the exponent; {known}."
        )
    return lines


def exponent(law: Law) -> str:
    """A law in words."""
    span = law.interval
    known = "no interval: the noise is too large to tell" if span is None else f"95 % {span[0]:.2f} to {span[1]:.2f}"
    return f"C^{law.exponent:.2f} ({known})"
