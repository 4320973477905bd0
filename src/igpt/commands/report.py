"""`igpt report`: one page about finished runs."""

import re
from datetime import UTC, datetime
from pathlib import Path

from igpt import __version__
from igpt.report import gather_all, markdown, page, sections, warn
from igpt.system import UserError, atomic_path, check_own

TITLE = re.compile(rb"(<title>|^# )\d+ runs? of igpt\b")
NAMED = 8  # runs in the line below the title


def report(runs: list[str], out: str = "report.html") -> None:
    """Write one page about finished runs: curves, probes, pictures, and which findings of the paper show in them.

    The page is a single HTML file that needs no network; beside it stands the same in Markdown, without pictures. What
    a run's folder does not hold yet is listed with the command that makes it, and what is broken there is left out and
    named.

    Args:
        runs: folders of runs, such as runs/digits_ar, or one that holds runs; runs that differ in nothing but seeds are
            taken together.
        out: page to write, ending in .html.

    Raises:
        UserError: there is no such folder, no run can be read, `out` does not end in .html, or it or the Markdown
            beside it is a file of the user's.
    """
    target = Path(out)
    if target.suffix != ".html":
        raise UserError(f"--out {out} must end in .html; such as report.html")
    beside = target.with_suffix(".md")
    for file in (target, beside):
        check_own(file, is_report)
    left_out: list[str] = []

    def say(line: str) -> None:
        warn(line)
        left_out.append(line)

    found = gather_all(runs, say)
    content = sections(found, left_out)
    title = f"{len(found)} run{'s' if len(found) > 1 else ''} of igpt"
    day = datetime.now(UTC).strftime("%d %B %Y")
    names = ", ".join(run.name for run in found[:NAMED]) + (" and others" if len(found) > NAMED else "")
    subtitle = f"{names}. Written on {day} by igpt {__version__}."
    with atomic_path(target) as path, atomic_path(beside) as plain:  # both files, or none
        path.write_text(page(title, subtitle, content), encoding="utf-8")
        plain.write_text(markdown(title, subtitle, content), encoding="utf-8")
    print(f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB) and {beside.name}: {title}")


def is_report(path: Path) -> bool:
    """Whether this command wrote the file, or nobody has written anything there."""
    with path.open("rb") as file:
        beginning = file.read(1 << 12)
    return not beginning or bool(TITLE.search(beginning))
