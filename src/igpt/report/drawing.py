"""How figures are drawn: SVG for a light and a dark ground; the same records give the same bytes."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from igpt.report.content import Image
from igpt.report.groups import Kind
from igpt.report.pairing import CORES

WIDTH, HEIGHT = 5.4, 3.4  # inches without the legend; letters stay readable on a phone
LONGEST = 38  # letters of a legend's entry
MARKS = "os^Dv*PX<>"


@dataclass(frozen=True)
class Theme:
    """Colours of letters and lines on one ground."""

    ink: str
    faint: str
    colors: tuple[str, ...]


LIGHT = Theme(
    "#333d4b", "#dfe4ea", ("#2b6cb0", "#c2571a", "#2f855a", "#a0307c", "#6546b8", "#0e7c94", "#8a6a12", "#5b6675")
)
DARK = Theme(
    "#c3cad5", "#39414d", ("#6aa9ec", "#f29b63", "#6cc9a0", "#e58fc5", "#b09af0", "#60c6da", "#d8bd63", "#a9b4c4")
)
Draw = Callable[[Any, Theme], None]  # draws on matplotlib axes


def image(title: str, draw: Draw, entries: int, alt: str, caption: str) -> Image:
    """The drawing for both grounds, with room for a legend of so many entries."""
    size = (WIDTH, HEIGHT + 0.22 * entries)
    return Image(title, svg(draw, size, LIGHT), "image/svg+xml", alt, caption, dark=svg(draw, size, DARK))


def svg(draw: Draw, size: tuple[float, float], theme: Theme) -> bytes:
    """One drawing as SVG: letters as outlines, transparent ground, no date, no random names inside."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), theme.ink
    )
    settings |= {"axes.grid": True, "grid.color": theme.faint, "grid.linewidth": 0.7, "axes.axisbelow": True}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8}
    settings |= {"svg.hashsalt": "igpt", "font.size": 10, "legend.frameon": False, "axes.titlesize": 10.5}
    with rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes, theme)
        add_legend(figure, axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def plain(text: str) -> str:
    """Text that matplotlib draws as it stands: no formulas, no letters that its font lacks, not too long."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return re.sub(r"^_", " _", re.sub(r"[^\x20-\x7e\xa0-\xff]", "?", short).replace("$", r"\$"))


def styles(kinds: list[Kind], theme: Theme) -> dict[Kind, dict[str, str]]:
    """Colour and mark of every kind; AR and BERT keep theirs whatever else is there."""
    free = cycle(zip(theme.colors[2:], MARKS[2:], strict=False))
    fixed = dict(zip(CORES, zip(theme.colors, MARKS, strict=False), strict=False))
    found = {}
    for kind in kinds:
        color, mark = fixed.pop(kind.objective) if kind.objective in fixed else next(free)
        found[kind] = {"color": color, "marker": mark}
    return found


def add_legend(figure: Any, axes: Any) -> None:
    """A legend under the axes, each entry once."""
    entries = {label: handle for handle, label in reversed(list(zip(*axes.get_legend_handles_labels(), strict=True)))}
    if entries:
        names = list(reversed(entries))
        figure.legend([entries[name] for name in names], names, loc="outside lower center", fontsize=9.5)


def described(what: str, parts: list[str]) -> str:
    """Alternative text: what is shown, and the first of its values."""
    more = f"; and {len(parts) - 8} more" if len(parts) > 8 else ""
    return f"{what}: {'; '.join(parts[:8])}{more}."


def plain_lines(text: str) -> str:
    """Several lines of text as matplotlib draws them."""
    return "\n".join(plain(line) for line in text.split("\n"))
