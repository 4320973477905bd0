"""What a page is made of, before it becomes HTML or Markdown."""

from dataclasses import dataclass, field

from igpt.report.findings import Finding


@dataclass(frozen=True)
class Column:
    """Head of a table's column; numbers stand to the right, command lines in fixed width."""

    name: str
    numeric: bool = False
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Cells are text, one for each column; the first names the row."""

    columns: list[Column]
    rows: list[list[str]]
    note: str = ""
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Image:
    """A picture that says in words what it shows; `dark` is the same on a dark ground, `crisp` keeps pixels square."""

    title: str
    content: bytes
    mime: str
    alt: str
    caption: str
    dark: bytes | None = None
    crisp: bool = False


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Command lines as they were typed."""

    title: str
    lines: list[str]


Item = Table | Image | Prose | Commands | Finding


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    title: str
    items: list[Item] = field(default_factory=list)


def columns(*names: str) -> list[Column]:
    """Columns from names; those with a leading ">" are numeric, with a leading "$" command lines."""
    return [Column(name.lstrip(">$"), name.startswith(">"), name.startswith("$")) for name in names]
