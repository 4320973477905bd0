"""`igpt report` on real runs, from the command line."""

import shutil

import pytest


@pytest.fixture
def runs(digits_run, digits_bert_run, tmp_path):
    """Copies of a real AR and a real BERT run."""
    folders = [tmp_path / "ar", tmp_path / "bert"]
    for source, copy in zip((digits_run, digits_bert_run), folders, strict=True):
        shutil.copytree(source.folder, copy, symlinks=True)
        shutil.rmtree(copy / "probe", ignore_errors=True)
    return folders


def test_one_command_writes_a_page_and_its_text_from_real_runs(runs, igpt, tmp_path):
    for folder in runs:
        code, _, err = igpt("probe", "--ckpt", folder / "checkpoints" / "last.ckpt")
        assert code == 0, err
    out = tmp_path / "out" / "report.html"
    code, printed, err = igpt("report", *runs, "--out", out)
    assert code == 0, err
    assert str(out) in printed
    assert 50_000 < out.stat().st_size < 5_000_000
    text = out.with_suffix(".md").read_text()
    assert "| ar | AR | Digits 8x8 |" in text
    assert "| bert | BERT | Digits 8x8 |" in text
    assert "BERT is behind AR on linear probes" in text
    assert "AR minus BERT, lbfgs, best layer" in text
    assert sorted(path.name for path in out.parent.iterdir()) == ["report.html", "report.md"]


def test_one_bare_run_is_enough(runs, igpt, tmp_path):
    code, _, err = igpt("report", runs[0], "--out", tmp_path / "r.html")
    assert code == 0, err
    assert "igpt probe --ckpt" in (tmp_path / "r.html").read_text()


def test_words_that_are_off_are_one_line_and_leave_no_page(runs, igpt, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, named in (
        ((runs[0], tmp_path / "nowhere"), "nowhere"),
        ((tmp_path / "empty",), "neither config.yaml nor checkpoints"),
        ((runs[0], "--out", tmp_path / "report.pdf"), ".html"),
    ):
        out = () if "--out" in arguments else ("--out", tmp_path / "report.html")
        code, _, err = igpt("report", *arguments, *out)
        assert code == 2
        assert named in err
        assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("report.*"))


def test_a_file_of_the_users_is_not_written_over_whatever_its_name(runs, igpt, tmp_path):
    (tmp_path / "README.md").write_text("# mine\n\nAbout 3 runs of igpt\n")
    (tmp_path / "index.html").write_text("<title>mine</title>")
    for name, lost in (("README.html", "README.md"), ("index.html", "index.html")):
        before = (tmp_path / lost).read_text()
        code, _, err = igpt("report", runs[0], "--out", tmp_path / name)
        assert code == 2
        assert lost in err
        assert (tmp_path / lost).read_text() == before
    assert not (tmp_path / "README.html").exists()
    (tmp_path / "r.html").touch()
    for _ in range(2):
        code, _, err = igpt("report", runs[0], "--out", tmp_path / "r.html")
        assert code == 0, err


def test_what_is_no_run_among_runs_is_left_out_and_named(runs, igpt, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine\n")
    (runs[1] / "scores.json").write_text("nonsense")
    out = tmp_path / "report.html"
    code, _, err = igpt("report", *runs, tmp_path / "empty", tmp_path / "notes.txt", "--out", out)
    assert code == 0
    assert all(name in line for name, line in zip(("scores.json", "empty", "notes.txt"), err.splitlines(), strict=True))
    assert "2 runs of igpt" in out.read_text()
    (runs[0] / "config.yaml").write_text("[]")
    shutil.rmtree(runs[0] / "checkpoints")
    code, _, err = igpt("report", runs[0], tmp_path / "empty", "--out", tmp_path / "none.html")
    assert code == 2
    assert "none of these 2 folders holds a run" in err.splitlines()[-1]
    assert not (tmp_path / "none.html").exists()


def test_one_run_by_several_ways_to_its_folder_counts_once(runs, igpt, tmp_path):
    (tmp_path / "link").symlink_to(runs[0])
    out = tmp_path / "report.html"
    code, printed, err = igpt("report", tmp_path / "link", runs[0], runs[1] / ".." / "ar", "--out", out)
    assert code == 0, err
    assert printed.strip().endswith(": 1 run of igpt")


def test_without_a_run_the_line_says_what_to_give(igpt):
    code, _, err = igpt("report")
    assert code == 2
    assert "run" in err
    assert len(err.strip().splitlines()) == 1


def test_a_report_replaces_an_earlier_one_and_nothing_else(runs, igpt, tmp_path):
    for _ in range(2):
        assert igpt("report", runs[0], "--out", tmp_path / "r.html")[0] == 0
    (tmp_path / "r.md").write_text("# Notes\n")
    (runs[0] / "notes.html").write_text("<title>Notes</title>")
    for out, kept in ((tmp_path / "r.html", tmp_path / "r.md"), (runs[0] / "notes.html", runs[0] / "notes.html")):
        code, _, err = igpt("report", runs[0], "--out", out)
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"{kept} is not of this command" in err
        assert "Notes" in kept.read_text()
