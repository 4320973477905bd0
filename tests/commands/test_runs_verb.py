"""`igpt runs`: what there is, and the removal of one run and no more."""

import re
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
    assert head.split()[:3] == ["name", "data", "model"]
    for line in lines:
        assert "Digits 8x8" in line
        assert "  30  " in line
        assert re.search(r" \d\.\d{4} ", line)  # the validation loss
        assert line.endswith(" MB")
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


@pytest.mark.parametrize("name", ["notes", "gone", "..", "ar/checkpoints", ".", "link", "../all/ar"])
def test_what_is_no_run_of_the_folder_is_not_removed(folder, igpt, name):
    (folder / "link").symlink_to(folder / "ar")
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


@pytest.mark.parametrize("where", ["gone", "a.txt"])
def test_a_folder_of_runs_that_is_none_is_said(igpt, tmp_path, where):
    (tmp_path / "a.txt").touch()
    code, _, err = igpt("runs", tmp_path / where)
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_folder_without_runs_says_how_to_begin_one(igpt, tmp_path):
    code, _, err = igpt("runs", tmp_path)
    assert (code, err) == (2, f"igpt runs: {tmp_path} holds no runs; begin one with 'igpt fit --config digits_ar'\n")


def test_the_settings_in_which_two_runs_differ_are_a_table_with_their_losses(folder, igpt, monkeypatch):
    config = folder / "ar2" / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.01", "learning_rate: 0.5"))
    code, out, err = igpt("runs", folder, "--diff", "ar", "ar2")
    assert code == 0, err
    head, *lines = out.splitlines()
    assert head.split() == ["ar", "ar2"]
    rows = [re.split("  +", line) for line in lines]
    assert [row[0] for row in rows] == ["model.learning_rate", "steps", "val loss", "test loss", "probe"]
    assert rows[0] == ["model.learning_rate", "0.01", "0.5"]
    assert rows[1] == ["steps", "30", "30"]
    assert re.fullmatch(r"\d\.\d{4}", rows[2][1])


def test_runs_to_compare_are_named_by_their_folders_as_well(folder, igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = igpt("runs", "--diff", "all/ar", "all/bert")
    assert code == 0, err
    rows = [re.split("  +", line) for line in out.splitlines()]
    assert ["model.class_path", "igpt.modules.Autoregressive", "igpt.modules.BERT"] in rows
    assert ["model.transformer.sos", "true", "false"] in rows
    assert "name" not in [row[0] for row in rows]


@pytest.mark.parametrize("names", [["ar"], ["ar", "notes"], ["ar", "ar2", "bert"], ["ar", "damaged"]])
def test_what_cannot_be_compared_is_one_line(folder, igpt, names):
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.yaml").write_bytes(b"a: [\xff")
    code, _, err = igpt("runs", folder, "--diff", *names)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "--diff" in err
