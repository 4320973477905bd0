"""`igpt runs`: what there is, and the removal of one run and no more."""

import shutil

import pytest

from igpt.system import only_writer, reader


@pytest.fixture
def folder(digits_run, digits_bert_run, tmp_path):
    for name, run in (("ar", digits_run), ("ar10", digits_run), ("ar2", digits_run), ("bert", digits_bert_run)):
        shutil.copytree(run.folder, tmp_path / "all" / name)
    (tmp_path / "all" / "notes").mkdir()
    return tmp_path / "all"


def test_every_run_is_a_line_in_natural_order_with_its_figures(folder, igpt):
    code, out, err = igpt("runs", folder)
    assert code == 0, err
    head, *lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["ar", "ar2", "ar10", "bert"]
    assert head.split()[:3] == ["run", "model", "data"]
    assert all("Digits 8x8" in line and "  30  " in line for line in lines)
    assert " AR " in lines[0]
    assert " BERT " in lines[3]


def test_a_report_of_a_folder_of_runs_is_of_all_of_them(folder, igpt, tmp_path):
    code, out, err = igpt("report", folder, "--out", tmp_path / "r.html")
    assert code == 0, err
    assert "4 runs of igpt" in out


def test_a_run_is_removed_whole_and_nothing_else(folder, igpt):
    code, out, _ = igpt("runs", folder, "--remove", "ar2")
    assert code == 0
    assert "removed" in out
    assert sorted(path.name for path in folder.iterdir()) == ["ar", "ar10", "bert", "notes"]


@pytest.mark.parametrize("name", ["notes", "gone", "..", "ar/checkpoints", "."])
def test_what_is_no_run_of_the_folder_is_not_removed(folder, igpt, name):
    before = sorted(folder.rglob("*"))
    code, _, err = igpt("runs", folder, "--remove", name)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"--remove {name}" in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("hold", [lambda path: only_writer(path, "wait"), reader], ids=["written", "read"])
def test_a_run_that_another_process_uses_is_not_removed(folder, igpt, hold):
    with hold(folder / "ar"):
        code, _, err = igpt("runs", folder, "--remove", "ar")
    assert (code, len(err.splitlines())) == (2, 1)
    assert (folder / "ar" / "checkpoints" / "last.ckpt").exists()


def test_a_folder_without_runs_says_how_to_begin_one(igpt, tmp_path):
    code, _, err = igpt("runs", tmp_path)
    assert (code, err) == (2, f"igpt runs: {tmp_path} holds no runs; begin one with 'igpt fit --config digits_ar'\n")
