"""The Python of README, docs and the notebook runs as it stands, in a folder such as the reader has."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.datamodules.pictures import picture

PAGES = ["README.md", "docs/python.md", "docs/api.md"]


def blocks(page):
    """The Python of a page, or the code of a notebook, block by block."""
    text = (REPO / page).read_text()
    if page.endswith(".ipynb"):
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def desk(digits_run, igpt, tmp_path, monkeypatch):
    """A folder with the digits run, a probe of it that was kept, its palette, and some pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run.folder / "checkpoints", "runs/digits_ar/checkpoints", symlinks=True)
    shutil.copytree(digits_run.palette.parent, "palettes")
    Path("my_images").mkdir()
    for number in range(3):
        picture(number).save(f"my_images/{number}.png")
    return igpt


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, desk):
    if "probe=" in "".join(blocks(page)):
        assert desk("probe", "--ckpt", "runs/digits_ar/checkpoints/last.ckpt", "--save")[0] == 0
    shape = {"n_layers=6": "n_layers=3", "d_model=96": "d_model=32"}  # of the run that tests share
    known = {}
    assert blocks(page)
    for block in blocks(page):
        for one, other in shape.items():
            block = block.replace(one, other)
        exec(compile(block, page, "exec"), known)


@pytest.mark.usefixtures("desk")
def test_the_notebook_runs_and_keeps_no_outputs():
    cells = json.loads((REPO / "docs" / "tour.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    known = {}
    for number, block in enumerate(blocks("docs/tour.ipynb")):
        exec(compile(block, f"cell {number}", "exec"), known)
    assert set(known["classes"].names) == set("0123456789")
