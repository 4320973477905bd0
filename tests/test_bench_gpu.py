"""`make bench-gpu` goes on where a row fails; that every row runs is seen by its dry run."""

import json
import sys

import pytest

from tests.conftest import REPO


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    for name in ("harness", "results", "networks", "peaks", "plan", "nanogpt", "gpu", "table"):
        sys.modules.pop(name, None)
    import gpu

    return gpu


@pytest.mark.slow
def test_a_row_that_fails_names_itself_and_the_others_go_on(gpu):
    nowhere = gpu.Place("nowhere", toy=True)
    names, found = zip(*gpu.measured(nowhere, [0, 1, 14], minutes=5), strict=True)
    assert names == tuple(gpu.ROWS[number].name for number in (0, 1, 14))
    assert all("nowhere" in one["failed"] for one in found)


@pytest.mark.slow
def test_rows_for_which_no_time_is_left_say_so(gpu):
    found = dict(gpu.measured(gpu.Place("cpu", toy=True), [0, 1], minutes=0))
    assert {one["failed"] for one in found.values()} == {"no time was left"}


def test_the_table_says_what_was_found_and_what_failed(gpu, tmp_path):
    import results
    import table

    file = tmp_path / "results.json"
    facts = {"device": "H", "date": "2026-11-27", "versions": {"torch": "2.11"}}
    for name, row in {
        "ceilings": {"bf16 operations/s": 8e14},
        "step": {"images/s": 600.0, "operations/s": 4e14, "batch": 64, "GiB": 27.25},
        "other": {"failed": "OutOfMemoryError"},
    }.items():
        results.save(file, "gpu", {name: row | facts})
    cells = {row[0]: row[1:] for row in table.gpu_cells(json.loads(file.read_text())["gpu"])}
    assert cells["step"] == ["64", "600 images/s", "50 %", "27.2"]
    assert cells["other"][1] == "OutOfMemoryError"
