"""`igpt curate` in several processes and on Dask, by the engines of `igpt tokenize`: the same bytes."""

import signal
import threading
import time

import numpy as np
import pytest

from igpt.curation import Blocks, Making
from igpt.curation.tasks import done as done_blocks
from igpt.curation.tasks import tasks_of
from igpt.system import UserError
from tests.commands.test_tokenize_dask import cluster, contents  # noqa: F401
from tests.curation.test_curate import done, options  # noqa: F401

LOCAL = {"threads_per_worker": 1, "processes": False, "dashboard_address": None}


def blocks(out):
    """What lies in the work folder, by name."""
    return contents(out.with_suffix(".work"))


def test_two_processes_write_the_bytes_of_one(done, web, igpt, tmp_path):  # noqa: F811
    out = tmp_path / "m.json"
    code, _, err = igpt(*options(web, out, "--workers", 2))
    assert code == 0, err
    assert out.read_bytes() == done.read_bytes()
    assert blocks(out) == blocks(done)


@pytest.mark.filterwarnings("ignore")  # what a cluster's own sockets say
def test_a_cluster_of_two_workers_writes_the_bytes_of_one_process(done, web, igpt, monkeypatch, tmp_path):  # noqa: F811
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)  # paths that begin here are sent whole
    with distributed.LocalCluster(2, **LOCAL) as local:
        words = ["--engine", "dask", "--scheduler", local.scheduler_address]
        code, _, err = igpt(*options(web, "m.json", *words))
    assert code == 0, err
    assert (tmp_path / "m.json").read_bytes() == done.read_bytes()
    assert blocks(tmp_path / "m.json") == blocks(done)


@pytest.mark.slow  # above, the workers are threads
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_half_way_writes_the_same_bytes(cluster, done, web, igpt, tmp_path):  # noqa: F811
    address, workers = cluster
    out, work = tmp_path / "m.json", tmp_path / "m.work"

    def kill_one():
        while len(list(work.glob("data-*.npy"))) < 2:
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    code, _, err = igpt(*options(web, out, "--engine", "dask", "--scheduler", address))
    killer.join(10)
    assert code == 0, err
    assert workers[0].wait(10) == -signal.SIGKILL
    assert out.read_bytes() == done.read_bytes()


def test_workers_that_write_elsewhere_are_named_in_one_line(tmp_path):
    def other_disk(work, tasks):
        return (Making(Blocks(tmp_path / "there"), work.make).run(task) for task in tasks)

    with pytest.raises(UserError, match=r"--scheduler: .* x-00000 elsewhere"):
        done_blocks(
            tasks_of("x", np.arange(3), 2, len), lambda: lambda rows: (rows, None), Blocks(tmp_path), other_disk, "x"
        )


def test_dask_and_its_scheduler_come_together(web, igpt, tmp_path):
    for words in (["--engine", "dask"], ["--scheduler", "tcp://127.0.0.1:1"]):
        code, _, err = igpt(*options(web, tmp_path / "m.json", *words))
        assert code == 2
        assert "--engine dask" in err
