"""Reading probe.json in every form that was ever written."""

import json
import math

import pytest

from igpt.checkpoints import read_probe_record
from igpt.probing.results import figure_of, from_dict

LAYERS = [{"layer": 0, "strength": 0.1, "val_accuracy": 0.5, "test_accuracy": 0.4}]


def test_a_record_of_one_method_and_one_kind_of_features_reads_as_one_of_today(tmp_path):
    old = {"method": "lbfgs", "best_layer": 0, "layers": LAYERS, "raw_pixels": None, "features": "mean over positions"}
    (tmp_path / "probe.json").write_text(json.dumps(old))
    found = read_probe_record(tmp_path / "probe.json")
    assert found["methods"]["lbfgs"]["layers"] == LAYERS
    assert found["features"] == {"norm": "normed", "grid": 1, "masks": 0, "standardise": True}
    assert {name: found[name] for name in ("method", "best_layer", "layers")} == {
        name: old[name] for name in ("method", "best_layer", "layers")
    }


def test_a_record_of_several_methods_and_options_is_read_as_it_stands(tmp_path):
    today = {"method": "knn", "methods": {"knn": {"layers": []}, "lbfgs": {}}, "features": {"norm": "raw", "grid": 2}}
    (tmp_path / "probe.json").write_text(json.dumps(today))
    assert read_probe_record(tmp_path / "probe.json") == today


def test_what_is_no_record_is_refused(tmp_path):
    for content, error in (("{", ValueError), ("[1]", AttributeError), ('{"step": 5}', KeyError)):
        (tmp_path / "probe.json").write_text(content)
        with pytest.raises(error):
            read_probe_record(tmp_path / "probe.json")


def test_the_figure_names_run_data_and_method_and_shows_the_standard_error_of_the_test_split():
    rows = [{"layer": n, "k": 5, "val_accuracy": 0.5, "test_accuracy": p} for n, p in enumerate((0.4, 1.0))]
    found = from_dict("knn", {"layers": rows, "raw_pixels": None, "concat": None})
    about = {"checkpoint": "runs/$my_run 猫$/checkpoints/last.ckpt", "step": 30, "images": {"test": 150},
             "data": {"class_path": "igpt_datamodules.Digits"}}  # fmt: skip
    figure = figure_of([found], about)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert axes.get_title() == "$my_run ?$, step 30\nDigits, knn"
    (bars,) = axes.containers
    ends = [(segment[1, 1] - segment[0, 1]) / 2 for segment in bars.lines[2][0].get_segments()]
    assert ends == pytest.approx([100 * math.sqrt(0.4 * 0.6 / 150), 0.0])
