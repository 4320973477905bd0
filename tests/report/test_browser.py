"""The page in a real browser, on a phone and on a desk."""

import shutil

import pytest

from igpt.report.figures import Image
from igpt.report.page import Section, page, sections
from igpt.report.reading import gather_all
from igpt.report.tables import Table
from tests.report.browser import chromium, look
from tests.report.folders import pretrained, tuned

WIDTHS = (400, 1400)
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium or google-chrome on this machine")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A page with every section, long names, and lines without a space to break at."""
    home = tmp_path_factory.mktemp("runs")
    folders = [
        pretrained(home / "digits_ar_of_a_rather_long_name_that_hardly_fits", "AR", 0.93),
        pretrained(home / f"{'x' * 80}", "BERT", 0.83),
        tuned(home / "tuned_ar", "AR", 0.95),
        tuned(home / "tuned_bert", "BERT", 0.94, one_mask=0.92),
    ]
    (folders[0] / "commands.txt").write_text(f"igpt fit --config {'y' * 300}.yaml\n")
    shutil.copytree(folders[1] / "probe" / "step=0000400", folders[1] / "probe.1")
    (folders[1] / "scores.json").write_text("[1, 2")
    left_out = []
    found = gather_all([str(folder) for folder in folders], left_out.append)
    return page("A title", "A line", sections(found, [*left_out, f"{'z' * 300}.json"]))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_drawn_and_nothing_sticks_out(text, width, tmp_path):
    found = look(text, width, tmp_path)
    assert found["problems"] == []
    assert found["width"] == width
    assert found["images"] == text.count("<img") >= 8
    assert found["parts"] > 500


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_that_is_too_wide_and_has_no_box_to_scroll_in_would_be_found(width, tmp_path):
    wide = f"<table><tr>{'<td style=min-width:9rem;display:table-cell>cell</td>' * 20}</tr></table>"
    harmed = page("t", "s", [Section("Wide", [])]).replace("</section>", f"{wide}</section>")
    problems = look(harmed, width, tmp_path)["problems"]
    assert any(problem.startswith("scrolls sideways") for problem in problems)
    assert any(problem.startswith("sticks out: t") for problem in problems)  # table or, on a phone, td


def test_a_wide_table_of_the_page_scrolls_in_its_own_box(tmp_path):
    many = Table([f"column {i}" for i in range(40)], [[f"cell {i}" for i in range(40)]])
    assert look(page("t", "s", [Section("Wide", [many])]), 1400, tmp_path)["problems"] == []


def test_a_broken_picture_would_be_found(tmp_path):
    broken = Image("Broken", b"no picture", "a broken picture", "caption")
    found = look(page("t", "s", [Section("x", [broken])]), 400, tmp_path)
    assert found["problems"] == ["not drawn: a broken picture"]
