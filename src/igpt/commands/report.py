"""`igpt report`: one page about finished runs."""

import re
from datetime import UTC, datetime
from pathlib import Path

from igpt import __version__
from igpt.errors import UserError
from igpt.files import atomic_path, check_own
from igpt.report.gather import gather_all
from igpt.report.page import page
from igpt.report.sections import sections
from igpt.report.text import markdown

NAMED = 8  # runs in the line below the title
TITLE = re.compile(rb"<title>\d+ runs? of igpt</title>")  # what an earlier page is known by
HEADING = re.compile(rb"\A# \d+ runs? of igpt\n")


def report(runs: list[str], out: str = "report.html") -> None:
    """Write one page about finished runs: curves, probes, pictures, and which findings of the paper show in them.

    The page is a single HTML file that needs no network; beside it stands the same in Markdown, without pictures. What
    a run's folder does not hold yet is listed with the command that makes it.

    Args:
        runs: folders of runs, such as runs/digits_ar; runs that differ in nothing but seeds are taken together.
        out: page to write, ending in .html.

    Raises:
        UserError: a folder holds no run, a file in it is broken, `out` does not end in .html, or
            holds what is no report.
    """
    target = Path(out)
    if target.suffix != ".html":
        raise UserError(f"--out {out} must end in .html; such as report.html")
    beside = target.with_suffix(".md")
    for file, title_of in ((target, TITLE), (beside, HEADING)):
        check_own(file, lambda path, own=title_of: own.search(path.read_bytes()) is not None)  # type: ignore[misc]
    found = gather_all(runs)
    content = sections(found)
    title = f"{len(found)} run{'s' if len(found) > 1 else ''} of igpt"
    day = datetime.now(UTC).strftime("%d %B %Y")
    names = ", ".join(run.name for run in found[:NAMED]) + (" and others" if len(found) > NAMED else "")
    subtitle = f"{names}. Written on {day} by igpt {__version__}."
    with atomic_path(target) as path, atomic_path(beside) as plain:  # both files, or none
        path.write_text(page(title, subtitle, content), encoding="utf-8")
        plain.write_text(markdown(title, subtitle, content), encoding="utf-8")
    print(f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB) and {beside.name}: {title}")
