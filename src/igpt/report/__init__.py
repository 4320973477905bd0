"""Finished runs as one page: `reading` makes records of run folders, `findings` judges them, `page` writes them down.

Everything between is a pure function of records (`schema`), and every number on the page comes from a file of a run or
from the paper (`published`).
"""

from igpt.report.model_card import model_card
from igpt.report.page import markdown, page, sections
from igpt.report.reading import gather_all, read_scores, runs_in, warn
from igpt.report.schema import Run

__all__ = [
    "Run", "gather_all", "markdown", "model_card", "page", "read_scores", "runs_in", "sections", "warn",
]  # fmt: skip
