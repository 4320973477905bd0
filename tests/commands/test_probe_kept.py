"""What a probe has finished is on the disk, and is not done again."""

import json

import pytest

from igpt.commands import probe as command


@pytest.fixture
def done(monkeypatch):
    """Names of the methods that were really run; a method named in `fails` is interrupted."""
    run, names, fails = command.run_method, [], set()

    def watched(method, task):
        if method.name in fails:
            raise KeyboardInterrupt
        names.append(method.name)
        return run(method, task)

    monkeypatch.setattr(command, "run_method", watched)
    return names, fails


def results(folder):
    return json.loads((folder / "probe.json").read_text())


def test_methods_finished_before_an_interrupt_are_kept_and_not_run_again(digits_run, igpt, tmp_path, done):
    names, fails = done
    words = ["probe", "--ckpt", digits_run.checkpoint, "--method", "lbfgs,knn", "--layers", "0,2"]
    assert igpt(*words, "--out", tmp_path / "whole")[0] == 0
    fails.add("knn")
    assert igpt(*words, "--out", tmp_path / "cut")[0] == 130
    assert set(results(tmp_path / "cut")["methods"]) == {"lbfgs"}
    fails.clear()
    names.clear()
    code, out, err = igpt(*words, "--out", tmp_path / "cut")
    assert code == 0, err
    assert names == ["knn"]
    assert "kept lbfgs: " in out
    whole, cut = (results(tmp_path / name) for name in ("whole", "cut"))
    assert whole["methods"] == cut["methods"]
    assert cut["method"] == "lbfgs"


def test_other_options_of_a_method_are_another_measurement(digits_run, igpt, tmp_path, done):
    names, _ = done
    words = ["probe", "--ckpt", digits_run.checkpoint, "--method", "knn", "--out", tmp_path / "p"]
    assert igpt(*words, "--layers", "0,2")[0] == 0
    assert igpt(*words, "--layers", "0,1")[0] == 0
    assert names == ["knn", "knn"]
    assert (tmp_path / "p.1" / "probe.json").exists()


def test_sizes_of_subsets_that_are_there_are_not_fitted_again(digits_run, igpt, tmp_path, monkeypatch):
    asked = []
    fit = command.low_data
    monkeypatch.setattr(command, "low_data", lambda task, few: asked.append(sorted(few)) or fit(task, few))
    words = ["probe", "--ckpt", digits_run.checkpoint, "--layers", 2, "--subsets", 2, "--out", tmp_path / "p"]
    assert igpt(*words, "--labels-per-class", 4)[0] == 0
    assert igpt(*words, "--labels-per-class", 4, 8)[0] == 0
    assert asked == [[4], [8]]
    assert [row["labels_per_class"] for row in results(tmp_path / "p")["low_data"]] == [4, 8]


def test_the_plot_says_of_which_data_and_how_sure_its_points_are(digits_run, igpt, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    words = ["probe", "--ckpt", digits_run.checkpoint, "--method", "knn", "--layers", "0,2", "--out", tmp_path / "p"]
    assert igpt(*words)[0] == 0
    axes = drawn[-1].axes[0]
    assert axes.get_title() == "mini, step 30\nDigits, knn"
    (bars,) = axes.containers
    tested = [row["test_accuracy"] for row in results(tmp_path / "p")["methods"]["knn"]["layers"]]
    lengths = [(path[1, 1] - path[0, 1]) / 2 for path in bars[2][0].get_segments()]
    assert lengths == pytest.approx([100 * (p * (1 - p) / 359) ** 0.5 for p in tested])
