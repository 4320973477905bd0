"""Reading probe.json in every form that was ever written."""

import json

import pytest

from igpt.probing import read_results

LAYERS = [{"layer": 0, "strength": 0.1, "val_accuracy": 0.5, "test_accuracy": 0.4}]


def test_a_record_of_one_method_and_one_kind_of_features_reads_as_one_of_today(tmp_path):
    old = {"method": "lbfgs", "best_layer": 0, "layers": LAYERS, "raw_pixels": None, "features": "mean over positions"}
    (tmp_path / "probe.json").write_text(json.dumps(old))
    found = read_results(tmp_path / "probe.json")
    assert found["methods"]["lbfgs"]["layers"] == LAYERS
    assert found["features"] == {"norm": "normed", "grid": 1, "masks": 0, "standardise": True}
    assert {name: found[name] for name in ("method", "best_layer", "layers")} == {
        name: old[name] for name in ("method", "best_layer", "layers")
    }


def test_a_record_of_several_methods_and_options_is_read_as_it_stands(tmp_path):
    today = {"method": "knn", "methods": {"knn": {"layers": []}, "lbfgs": {}}, "features": {"norm": "raw", "grid": 2}}
    (tmp_path / "probe.json").write_text(json.dumps(today))
    assert read_results(tmp_path / "probe.json") == today


def test_what_is_no_record_is_refused(tmp_path):
    for content, error in (("{", ValueError), ("[1]", AttributeError), ('{"step": 5}', KeyError)):
        (tmp_path / "probe.json").write_text(content)
        with pytest.raises(error):
            read_results(tmp_path / "probe.json")
