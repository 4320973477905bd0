"""Where figures come from: data with their folder and fingerprint, and probes that were moved aside."""

import json

import pytest

from igpt.report.findings import all_findings
from igpt.report.page import markdown, sections
from igpt.report.reading import gather, gather_all
from igpt.report.tables import (
    all_layers,
    data_sets,
    losses_and_probes,
    low_data,
    moved_aside,
    probes,
    published,
    summary,
)
from tests.report.folders import data, model, pretrained, probe_record, write_config, write_probe


def identity(root, fingerprint, **more):
    return {"name": "ImageFolder", "root": root, "fingerprint": fingerprint, "classes": 2, **more}


def rows(table):
    return [dict(zip((head.lstrip(">") for head in table.heads), row, strict=True)) for row in table.rows]


def test_data_are_shown_with_their_folder_and_fingerprint_and_who_used_them(tmp_path):
    spec = data(name="ImageFolder", resolution=16)
    for name, root, mark in (("a", "/data/cells", "aa"), ("b", "/mnt/cells", "aa"), ("c", "/data/icons", "bb")):
        folder = write_config(tmp_path / name, model("AR"), of=spec)
        write_probe(folder, probe_record([0.5, 0.9, 0.6], data=spec, identity=identity(root, mark)))
    found = rows(data_sets(gather_all([str(tmp_path / name) for name in "abc"])))
    assert [(row["Data"], row["Folder"], row["Fingerprint"], row["Classes"]) for row in found] == [
        ("ImageFolder 16x16 #1", "/data/cells", "aa", "2"),
        ("ImageFolder 16x16 #1", "/mnt/cells", "aa", "2"),
        ("ImageFolder 16x16 #2", "/data/icons", "bb", "2"),
    ]
    assert [(row["Trained on them"], row["Probed or scored on them"]) for row in found] == [
        (name, name) for name in "abc"
    ]


def test_a_real_run_shows_the_fingerprint_of_its_data(digits_run):
    (row,) = rows(data_sets([gather(str(digits_run.folder))]))
    assert (row["Data"], row["Classes"], row["Trained on them"]) == ("Digits 8x8", "10", "mini")
    assert len(row["Fingerprint"]) == 16


@pytest.fixture
def moved(tmp_path):
    """A run with a probe of its own, and three that were moved aside."""
    folder = pretrained(tmp_path / "run", "AR", 0.9)
    for name, norm, spec, top in (
        ("probe.1", "raw", data(), 0.8),
        ("probe.10", "normed", data(name="SamplePhotos", resolution=16), 0.7),
        ("probe.2", "normed", data(), 0.6),
        ("probe/step=0000400.1", "normed", data(), 0.5),
    ):
        record = probe_record([0.1, top, 0.2], step=400 if "step" in name else 500, data=spec)
        record["features"]["norm"] = norm
        (folder / name).mkdir()
        (folder / name / "probe.json").write_text(json.dumps(record))
    return folder


def test_probes_that_were_moved_aside_are_named_with_checkpoint_data_and_options(moved):
    found = rows(moved_aside([gather(str(moved))]))
    assert [(row["Folder"], row["Step"], row["Data"], row["Best layer"], row["Test"]) for row in found] == [
        ("probe.1", "500", "Digits 8x8", "1", "80.0 %"),
        ("probe.2", "500", "Digits 8x8", "1", "60.0 %"),
        ("probe.10", "500", "SamplePhotos 16x16", "1", "70.0 %"),
        ("probe/step=0000400.1", "400", "Digits 8x8", "1", "50.0 %"),
    ]
    assert ["raw" in row["Options"] for row in found] == [True, False, False, False]
    assert {row["Checkpoint"] for row in found} == {"last.ckpt"}
    assert "layers 0, 1, 2, images 1,294 / 144 / 359" in found[0]["Options"]


def test_probes_that_were_moved_aside_change_no_finding_and_no_other_table(moved):
    run = gather(str(moved))
    bare = gather(str(pretrained(moved.parent / "bare" / "run", "AR", 0.9)))
    for about in (all_findings, summary, probes, all_layers, losses_and_probes, low_data, published):
        assert about([run]) == about([bare])
    assert "Earlier probes" in markdown("t", "s", sections([run]))
    assert "Earlier probes" not in markdown("t", "s", sections([bare]))
