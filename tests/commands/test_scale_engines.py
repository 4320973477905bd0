"""`igpt scale` in several processes and on Dask, by the engines of `igpt tokenize`; a stand-in for the commands."""

import json
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

import igpt.commands.after.scale_runs as command
from tests.commands.test_scale import scale, stand_in, there  # noqa: F401
from tests.commands.test_tokenize_dask import cluster  # noqa: F401


def test_runs_in_two_processes_are_those_of_one_and_share_the_cores_out(igpt, stand_in, monkeypatch):  # noqa: F811
    monkeypatch.setattr("igpt.commands.after.scale.os.cpu_count", lambda: 4)

    def noted(words, log, place, threads):
        code = stand_in(words, log)
        log.with_name(f".{words[0]}_{log.stem}.threads").write_text(f"{threads} {place}")
        return code

    monkeypatch.setattr(command, "attached", noted)  # which forked processes have, too
    code, out, err = scale(igpt, "--workers", "2")
    assert code == 0, err
    found = json.loads(Path("s/scale.json").read_text())
    assert [one["name"] for one in found["results"]] == [one["name"] for one in found["planned"]]
    assert "8 of 8 runs" in out
    assert {path.read_text() for path in Path("s").glob(".*.threads")} == {f"2 {Path.cwd()}"}


@pytest.mark.filterwarnings("ignore")  # what a cluster's own sockets say
def test_runs_on_dask_are_those_of_one_process(igpt, stand_in):  # noqa: F811
    from_here = scale(igpt, "--num", "0")
    assert from_here[0] == 0, from_here[2]
    here = json.loads(Path("s/scale.json").read_text())
    shutil.rmtree("s")
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(2, **options) as local:
        words = ["--num", "0", "--engine", "dask", "--scheduler", local.scheduler_address]
        code, _, err = scale(igpt, *words)
    assert code == 0, err
    assert json.loads(Path("s/scale.json").read_text()) == here


@pytest.mark.filterwarnings("ignore")
def test_a_run_on_dask_that_refuses_says_so_in_one_line(igpt, stand_in, monkeypatch):  # noqa: F811
    def refusing(words, log, *_):
        log.write_text("igpt fit: --data: no such file; give another\n")
        return 2

    monkeypatch.setattr(command, "attached", refusing)
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(1, **options) as local:
        code, _, err = scale(igpt, "--engine", "dask", "--scheduler", local.scheduler_address)
    assert (code, err.splitlines()) == (2, ["igpt scale: --data: no such file; give another"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_half_way_does_all_runs(cluster, igpt, there):  # noqa: F811
    address, workers = cluster

    def kill_one():
        while len(list(Path("s").glob("*/result.json"))) < 3:
            time.sleep(0.05)
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    options = ["--smallest", "4e8", "--largest", "6e8", "--ratios", "2", "60", "--probe", "false", "--num", "0"]
    code, out, err = scale(igpt, *options, "--engine", "dask", "--scheduler", address)
    killer.join(10)
    assert code == 0, err
    assert workers[0].wait(10) == -signal.SIGKILL
    assert "8 of 8 runs" in out
    found = json.loads(Path("s/scale.json").read_text())
    for run, result in zip(found["planned"], found["results"], strict=True):
        assert json.loads(Path("s", run["name"], "result.json").read_text())["steps"] == run["steps"]
        assert result["name"] == run["name"]
