"""`igpt tokenize --engine dask` on a real cluster of two worker processes, one of which dies half-way."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from igpt.tokenization.engines import run_on_dask
from igpt.tokenization.tasks import Job, tasks_of
from igpt_datamodules import Digits
from tests.conftest import REPO

pytest.importorskip("distributed")

DIGITS = ["tokenize", "--data", "Digits", "--palette", REPO / "palettes" / "digits.npy", "--shard_images", 20]
START = "import sys; from distributed.cli.dask_{0} import main; sys.argv[0] = 'dask'; main()"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def started(kind, *options, **streams):
    return subprocess.Popen([sys.executable, "-c", START.format(kind), *map(str, options)], **streams)


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler, and its two workers, each a process of one thread that nobody restarts."""
    address = tmp_path / "scheduler.json"
    common = ["--scheduler-file", address]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    scheduler = started("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", *common, **quiet)
    workers = [
        started("worker", "--nthreads", 1, "--no-nanny", "--no-dashboard", "--name", name, *common, **quiet)
        for name in "ab"
    ]
    try:
        from distributed import Client

        with Client(scheduler_file=str(address), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the cluster's own sockets say while one end dies
def test_a_cluster_that_loses_a_worker_half_way_writes_the_same_bytes(cluster, igpt, tmp_path):
    address, workers = cluster
    code, _, err = igpt(*DIGITS, "--out", tmp_path / "here", "--workers", 1)
    assert code == 0, err
    out = tmp_path / "there"
    killed_at = []

    def kill_one():
        while len(list(out.glob(".unfinished/*.npy.json"))) < 15:
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)
        killed_at.append(len(list(out.glob(".unfinished/*.npy.json"))))

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    code, _, err = igpt(*DIGITS, "--out", out, "--engine", "dask", "--scheduler", address)
    killer.join(10)
    assert code == 0, err
    assert workers[0].wait(10) == -signal.SIGKILL
    assert workers[1].poll() is None
    assert killed_at[0] < 91  # there was work left to do
    assert contents(out) == contents(tmp_path / "here")


class FullDisk(Job):
    """A job that finds no room for any shard, and notes every attempt."""

    def run(self, task):
        with open(f"{self.out}/runs.txt", "a") as file:
            file.write(f"{task.name}\n")
        raise UserError("cannot write: No space left on device; make room or choose another --out")


@pytest.mark.filterwarnings("ignore")
def test_a_task_that_says_what_is_wrong_is_not_run_again(tmp_path):
    from distributed import LocalCluster

    job = FullDisk(Digits(), Palette.load(DIGITS[4]), str(tmp_path), 0, 0)
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(1, **options) as cluster, pytest.raises(UserError, match="No space left"):
        list(run_on_dask(job, tasks_of(job, None)[:1], cluster.scheduler_address))
    assert (tmp_path / "runs.txt").read_text() == "train-00000.npy\n"


def test_a_scheduler_that_is_not_there_is_named_in_one_line(igpt, tmp_path, monkeypatch):
    monkeypatch.setattr("igpt.tokenization.engines.PATIENCE", 1)
    address = "tcp://127.0.0.1:1"
    code, _, err = igpt(*DIGITS, "--out", tmp_path / "out", "--engine", "dask", "--scheduler", address)
    assert code == 2, err
    assert f"--scheduler {address} does not answer" in err.splitlines()[-1]
