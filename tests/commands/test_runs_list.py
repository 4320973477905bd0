"""`igpt runs` lists what was trained, and removes runs alone."""

import re
import shutil

import pytest


def test_a_run_is_listed_with_data_model_steps_losses_and_size(igpt, digits_run):
    code, out, err = igpt("runs", "--runs_dir", digits_run.folder.parent)
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("mini "))
    assert "Digits" in line
    assert "AR" in line
    assert " 30 " in line
    assert line.endswith("MB")
    assert re.search(r" \d\.\d{4} ", line)  # the validation loss


def test_a_run_is_removed_and_nothing_else_is(igpt, digits_run, tmp_path):
    home = tmp_path / "runs"
    shutil.copytree(digits_run.folder, home / "mini", symlinks=True)
    (home / "notes").mkdir()
    (home / "notes" / "mine.txt").write_text("keep")
    (home / "link").symlink_to(digits_run.folder)
    for name in ("notes", "link", "gone", "..", "../runs/mini", "."):
        code, _, err = igpt("runs", "--runs_dir", home, "--remove", name)
        assert (code, len(err.splitlines())) == (2, 1), name
        assert "is no run" in err
    code, out, _ = igpt("runs", "--runs_dir", home, "--remove", "mini")
    assert code == 0
    assert "removed" in out
    assert {path.name for path in home.iterdir() if not path.name.startswith(".")} == {"notes", "link"}
    assert digits_run.checkpoint.exists()


@pytest.mark.parametrize("where", ["gone", "a.txt"])
def test_a_folder_of_runs_that_is_none_is_said(igpt, tmp_path, where):
    (tmp_path / "a.txt").touch()
    code, _, err = igpt("runs", "--runs_dir", tmp_path / where)
    assert (code, len(err.splitlines())) == (2, 1)
