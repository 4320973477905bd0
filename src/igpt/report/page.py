"""The page as one HTML file that needs nothing else: no script, no network, pictures inside."""

import base64
import html
import re
from itertools import groupby

from igpt.report.content import Column, Commands, Image, Item, Section, Table
from igpt.report.findings import Evidence, Finding
from igpt.report.judging import CANNOT, NOT_SEEN, SEEN
from igpt.report.style import STYLE
from igpt.system import in_one_line

LONG = 30  # letters from which on a cell asks for a wider column
VERDICTS = {SEEN: "yes", NOT_SEEN: "no", CANNOT: "open"}


def page(title: str, subtitle: str, sections: list[Section]) -> str:
    """The whole page."""
    links = " ".join(f'<a href="#{anchor(s.title)}">{escape(short(s.title))}</a>' for s in sections)
    body = "\n".join(map(section, sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(subtitle)}</p>\n<nav>{links}</nav>\n</header>\n"
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Text that came from anywhere, as text, its control characters written out as a terminal shows them."""
    return html.escape(in_one_line(text), quote=True)


def anchor(title: str) -> str:
    """Name of a section in links."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def short(title: str) -> str:
    """A section's title for the list of sections."""
    return title.partition(":")[0].removesuffix(" of the paper in these runs").removesuffix(" and their protocol")


def section(item: Section) -> str:
    """One section; neighbouring pictures stand in a grid."""
    parts = []
    for pictures, group in groupby(item.items, key=lambda part: isinstance(part, Image)):
        blocks = "\n".join(map(block, group))
        parts.append(f'<div class="grid">\n{blocks}\n</div>' if pictures else blocks)
    body = "\n".join(parts)
    return f'<section id="{anchor(item.title)}">\n<h2>{escape(item.title)}</h2>\n{body}\n</section>'


def block(item: Item) -> str:
    """One item."""
    if isinstance(item, Table):
        return table(item)
    if isinstance(item, Image):
        return figure(item)
    if isinstance(item, Finding):
        return finding(item)
    if isinstance(item, Commands):
        return commands(item)
    return f"<p>{escape(item.text)}</p>"


def table(item: Table) -> str:
    """A table in a box of its own, which scrolls where it is too wide; on a phone its rows become cards."""
    heads = "".join(f'<th scope="col"{kind(c.numeric)}>{escape(c.name)}</th>' for c in item.columns)
    rows = "\n".join(row(item, cells) for cells in item.rows)
    box = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    note = f'<p class="note">{escape(item.note)}</p>' if item.note else ""
    if item.folded:
        return f"<details><summary>{escape(item.title)}</summary>\n{box}\n{note}</details>"
    return (f"<h3>{escape(item.title)}</h3>\n" if item.title else "") + f"{box}\n{note}"


def row(item: Table, cells: list[str]) -> str:
    """One row; every cell knows its column's name, which cards show. Names may break behind underscores."""
    first, *others = zip(item.columns, cells, strict=True)
    rest = "".join(
        f'<td data-name="{escape(c.name)}"{kind(c.numeric, cell)}>{inside(c, cell)}</td>' for c, cell in others
    )
    return f'<tr><th scope="row">{escape(first[1]).replace("_", "_<wbr>")}</th>{rest}</tr>'


def inside(column: Column, cell: str) -> str:
    """What stands in a cell."""
    return f"<code>{escape(cell)}</code>" if column.code else escape(cell)


def kind(numeric: bool, cell: str = "") -> str:
    """Class of a cell."""
    return ' class="number"' if numeric else ' class="long"' if len(cell) > LONG else ""


def figure(item: Image) -> str:
    """A picture with its caption; on a dark ground its dark variant, where it has one."""
    crisp = ' class="crisp"' if item.crisp else ""
    shown = f'<img src="{uri(item.content, item.mime)}" alt="{escape(item.alt)}"{crisp}>'
    if item.dark is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{uri(item.dark, item.mime)}">'
        shown = f"<picture>{dark}{shown}</picture>"
    return f"<figure>{shown}<figcaption><b>{escape(item.title)}</b> {escape(item.caption)}</figcaption></figure>"


def uri(content: bytes, mime: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def finding(item: Finding) -> str:
    """A claim with one line and verdict for each comparison, and the rule behind a fold."""
    lines = item.evidence or [Evidence("No runs to tell by", item.missing, "", CANNOT)]
    return (
        f'<article class="finding">\n<h3>{escape(item.claim)}</h3>\n<ul>{"".join(map(evidence, lines))}</ul>\n'
        f"<details><summary>Rule</summary><p>{escape(item.rule)}</p></details>\n</article>"
    )


def evidence(item: Evidence) -> str:
    """One comparison."""
    runs = f'<span class="runs">{escape(item.runs)}</span>' if item.runs else ""
    badge = f'<span class="verdict {VERDICTS[item.verdict]}">{escape(item.verdict)}</span>'
    return f"<li>{badge}<b>{escape(item.subject)}</b><span>{escape(item.numbers)}</span>{runs}</li>"


def commands(item: Commands) -> str:
    """Command lines as they were typed, long ones wrapped."""
    return (
        f"<details><summary>{escape(item.title)}</summary><pre>{chr(10).join(map(escape, item.lines))}</pre></details>"
    )
