"""The page as Markdown: tables and text, without pictures."""

import re

from igpt.report.content import Column, Commands, Image, Item, Section, Table
from igpt.report.findings import Finding
from igpt.report.judging import CANNOT
from igpt.system import in_one_line


def markdown(title: str, subtitle: str, sections: list[Section]) -> str:
    """The whole report."""
    parts = [f"# {escape(title)}", escape(subtitle)]
    for section in sections:
        parts += [f"## {escape(section.title)}", *(block(item) for item in section.items)]
    return "\n\n".join(parts) + "\n"


def block(item: Item) -> str:
    """One item; of a picture, what it shows in words."""
    if isinstance(item, Table):
        return table(item)
    if isinstance(item, Finding):
        return finding(item)
    if isinstance(item, Commands):
        return f"**{escape(item.title)}**\n\n{fence(item.lines)}"
    if isinstance(item, Image):
        return f"- {escape(item.alt)}"
    return escape(item.text)


def table(item: Table) -> str:
    """Rows of cells, with title and note around them."""
    rule = ["---:" if column.numeric else "---" for column in item.columns]
    heads = [escape(column.name) for column in item.columns]
    rows = [[cell(c, text) for c, text in zip(item.columns, cells, strict=True)] for cells in item.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]
    return "\n\n".join(part for part in (bold(item.title), "\n".join(lines), escape(item.note)) if part)


def cell(column: Column, text: str) -> str:
    """One cell; a command line as it is typed, where it has nothing that would end the cell or the code."""
    return code(text) if column.code and "|" not in text else escape(text)


def code(text: str) -> str:
    """A path or command line in fixed width, where it has nothing that would end that."""
    return escape(text) if "`" in text else f"`{in_one_line(text)}`"


def finding(item: Finding) -> str:
    """A claim, what each comparison says, and the rule."""
    lines = [
        f"- **{escape(e.verdict)}**: {escape(e.subject)}: {escape(e.numbers)}; {escape(e.runs)}" for e in item.evidence
    ] or [f"- **{CANNOT}**: {escape(item.missing)}"]
    return f"### {escape(item.claim)}\n\n" + "\n".join(lines) + f"\n\nRule: {escape(item.rule)}"


def bold(text: str) -> str:
    """A small heading; nothing where there is none."""
    return f"**{escape(text)}**" if text else ""


def escape(text: str) -> str:
    """Text of a file or name as Markdown that shows it as it stands, control characters as a terminal does."""
    marked = re.sub(r"([\\`*_~$\[\]|])", r"\\\1", in_one_line(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fence(lines: list[str], language: str = "") -> str:
    """Lines as they are, between fences longer than any that stands in them."""
    text = "\n".join(map(in_one_line, lines))
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{ticks}{language}\n{text}\n{ticks}"
