"""One page about finished runs: `gather` reads run folders, `findings` judges them, `page` and `text` write them down.

Everything between `gather` and the files written is a pure function of records (`records.py`), and every number on the
page comes from a file of a run or from the paper (`published.py`).
"""

from igpt.report.gather import gather_all
from igpt.report.leaving import warn
from igpt.report.model_card import Facts, model_card
from igpt.report.page import page
from igpt.report.sections import sections
from igpt.report.text import markdown

__all__ = ["Facts", "gather_all", "markdown", "model_card", "page", "sections", "warn"]
