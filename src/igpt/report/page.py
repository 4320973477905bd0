"""The report: its sections from records, written as one HTML file that needs nothing else, and as Markdown."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igpt.report import figures, tables
from igpt.report.comparing import any_family
from igpt.report.figures import Image
from igpt.report.findings import CANNOT, NO_DATA, NOT_SEEN, SEEN, Finding, all_findings
from igpt.report.schema import Run
from igpt.report.tables import Table
from igpt.system import in_one_line


class Commands(NamedTuple):
    """Command lines as they were typed."""

    title: str
    lines: list[str]


class Section(NamedTuple):
    """A heading with what stands under it (a text is a paragraph), or one sentence where there is nothing."""

    title: str
    items: Sequence[Table | Image | Commands | Finding | str | None] = ()
    nothing: str = ""

    @property
    def found(self) -> list[Table | Image | Commands | Finding | str]:
        """What there is to show."""
        return [item for item in self.items if item is not None] or [self.nothing]

    @property
    def anchor(self) -> str:
        """Name of the section in links."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def sections(runs: list[Run], left_out: Sequence[str] = ()) -> list[Section]:
    """Everything about these runs, and the lines about what could not be read."""
    data = ", ".join(sorted({run.data.label for run in runs}))
    about = (
        f"Each claim is looked for in these {len(runs)} run{'s' if len(runs) > 1 else ''} ({data}), by a rule that is "
        "stated with it. A verdict holds for these runs; it neither confirms nor refutes the paper's models and data."
    )
    unread = ["All that could be read is on this page. These could not:", *left_out]
    features = [*figures.layer_curves(runs), figures.loss_against_accuracy(runs), figures.objectives(runs)]
    protocols = (tables.probes, tables.fine_tuned, tables.published, tables.context, tables.losses_and_probes,
                 tables.all_layers, tables.moved_aside)  # fmt: skip
    judged, open_ = ([one for one in all_findings(runs) if bool(one.evidence) == has] for has in (True, False))
    likelihood = "Generation: exact likelihood of the test images"
    return [
        Section("Runs", [tables.summary(runs), tables.networks(runs), tables.data_sets(runs)]),
        *([Section("Left out", unread)] if left_out else []),
        Section("Loss", figures.loss_curves(runs), "No events of training were found."),
        Section("Features", [*features, *figures.confusions(runs)], "No probe.json was found."),
        *([Section("Families", [figures.depth_curves(runs), tables.families(runs)])] if any_family(runs) else []),
        Section("Palette and pictures", [*figures.palettes(runs), *figures.drawings(runs)], "No pictures were found."),
        Section("Findings of the paper in these runs", [about, *judged, tables.untestable(open_)]),
        Section(likelihood, [tables.likelihoods(runs)], "Neither scores.json nor probe.json has one."),
        Section("Samples beside training images", [tables.evaluations(runs)], "No evaluate.json was found."),
        Section("Few labels", [tables.low_data(runs)], "No probe.json and no fine-tuned run has such figures."),
        Section("Figures and their protocol", [make(runs) for make in protocols]),
        Section("What is missing", [tables.missing(runs)], "Nothing; every figure that this page knows is there."),
        Section("Commands", commands(runs), "No command is recorded in these folders."),
    ]


def commands(runs: list[Run]) -> list[Commands]:
    """The command lines that made each run and its figures, in the order in which they are found, each once."""
    found = [(run.name, [*run.commands, *(score.command for score in run.scores), *(p.command for p in run.probes),
              *([run.judged.command] if run.judged else [])])
             for run in runs]  # fmt: skip
    return [Commands(name, kept) for name, lines in found if (kept := list(dict.fromkeys(filter(None, lines))))]


def page(title: str, subtitle: str, content: list[Section]) -> str:
    """The report as HTML: no script, no network, pictures inside; on a phone the rows of tables become cards."""
    return render("page.html.j2", title=title, subtitle=subtitle, sections=content)


def markdown(title: str, subtitle: str, content: list[Section]) -> str:
    """The report as Markdown: tables and text; of a picture, what it shows in words."""
    return render("page.md.j2", title=title, subtitle=subtitle, sections=content)


def render(template: str, **given: object) -> str:
    """A template of this folder, HTML or Markdown; all text that is put into it is escaped, control characters too."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    html = template.endswith(".html.j2")

    def finalize(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        return in_one_line(value) if html else escape(value)

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=html, finalize=finalize,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "base64": lambda content: base64.b64encode(content).decode(),
        "code": lambda text: Markup(code(text)),
        "fence": lambda *given: Markup(fence(*given)),
        "kind": lambda item: type(item).__name__,
        "one_line": in_one_line,
    }
    verdicts = {SEEN: "yes", NOT_SEEN: "no", CANNOT: "open", NO_DATA: "open"}
    return environment.get_template(template).render(verdicts=verdicts, **given)


def fence(lines: list[str], language: str = "") -> str:
    """Lines as they are, between fences of Markdown longer than any that stands in them."""
    text = "\n".join(map(in_one_line, lines))
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{ticks}{language}\n{text}\n{ticks}"


def code(text: str) -> str:
    """A path or command line in fixed width as Markdown, where it has nothing that would end that."""
    return escape(text) if "`" in text or "|" in text else f"`{in_one_line(text)}`"


def escape(text: str) -> str:
    """Text of a file or name as Markdown that shows it as it stands, control characters as a terminal does."""
    marked = re.sub(r"([\\`*_~$\[\]|])", r"\\\1", in_one_line(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
