"""Loader processes that end, and batches that find no room in shared memory."""

import gc
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from igpt.data import ImageDataModule, LabelledImages, collate
from igpt.system.errors import UserError
from tests.conftest import REPO

R = 32


class Ending(LabelledImages):
    """Images whose reader ends in a certain way at a certain image."""

    def __init__(self, how, count=400, at=200):
        self.labels, self.how, self.at = torch.zeros(count, dtype=torch.int64), how, at

    def __getitem__(self, index):
        if index == self.at and self.how is not None:
            self.how()
        return torch.full((3, R, R), index % 256, dtype=torch.uint8), 0


class Images(ImageDataModule):
    """Ends while it validates or trains."""

    def __init__(self, how=None, workers=2):
        super().__init__(resolution=R, batch_size=8, num_workers=workers)
        self.how = how

    def load(self):
        return {"train": Ending(self.how), "test": Ending(None, 64)}


def raise_unsendable():
    class Unknown(Exception):  # noqa: N818  found by no name, and so not to be pickled
        pass

    raise Unknown


ENDS = {
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed, as the system does when memory runs out"),
    "SIGBUS": (lambda: os.kill(os.getpid(), signal.SIGBUS), "bus error, as when /dev/shm is full"),
    "SIGSEGV": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "ended by SIGSEGV"),
    "exit 0": (lambda: os._exit(0), "ended with exit code 0"),
    "exit 3": (lambda: os._exit(3), "ended with exit code 3"),
    "SystemExit": (lambda: sys.exit(4), "ended with exit code 4"),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ENDS)
def test_a_loader_process_that_ends_is_one_line_that_says_what_to_do(name, workers):
    how, words = ENDS[name]
    started = time.monotonic()
    with pytest.raises(UserError, match=words) as error:
        list(Images(how, workers).train_dataloader())
    assert "\n" not in str(error.value)
    assert "num_workers" in str(error.value)
    assert time.monotonic() - started < 20


def test_one_that_ends_while_it_writes_leaves_nobody_waiting():
    data = Images(workers=1)
    data.batch_size = 64
    batches = iter(data.loader("train"))
    next(batches)
    time.sleep(0.5)  # its batches are larger than a pipe holds: it is in the middle of writing one
    [worker] = batches.gi_frame.f_locals["iterator"]._workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="was killed"):
        list(batches)


def test_what_cannot_be_sent_ends_the_wait():
    with pytest.raises(UserError, match="could not hand over"):
        list(Images(raise_unsendable, 1).loader("train"))


def test_a_loader_can_be_used_again_after_its_processes_ended():
    data = Images()
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(UserError):
        [list(loader) for _ in range(3)]
    assert len(list(loader)) == len(loader)


def test_batches_arrive_as_they_were_made_and_may_be_written_to():
    here, there = Images(workers=0).loader("test"), Images(workers=2).loader("test")
    for (images, labels), (others, known) in zip(here, there, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, known)
        assert others.dtype == torch.uint8
        others.add_(1)


def test_items_of_other_kinds_are_stacked_as_torch_does():
    features, labels = collate([(torch.ones(3, dtype=torch.float16), torch.tensor(2)), (torch.zeros(3), 1)][:1])
    assert features.shape == (1, 3)
    assert labels.tolist() == [2]


IN_LITTLE = """
import torch
from tests.test_workers import Ending, Images
from igpt.data import TensorImages
class Held(Images):
    def load(self):
        images = torch.zeros(400, 3, 128, 128, dtype=torch.uint8)
        return {"train": TensorImages(images, torch.zeros(400)), "test": TensorImages(images[:9], torch.zeros(9))}
for kind in (Images, Held):
    data = kind()
    data.resolution = kind is Held and 128 or data.resolution
    print(sum(len(labels) for _ in range(2) for _, labels in data.train_dataloader()))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux can mount a small /dev/shm"
)
def test_training_needs_no_shared_memory():
    mount = "mount -t tmpfs -o size=256k tmpfs /dev/shm"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    command = [unshare, "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, IN_LITTLE]
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["720", "720"], done.stderr


ORPHANED = """
import os, time
from tests.test_workers import Images
data = Images(workers=1)
data.batch_size = 64
batches = iter(data.loader("train"))
next(batches)
time.sleep(0.5)  # the process is in the middle of a batch that is larger than a pipe holds
print(batches.gi_frame.f_locals["iterator"]._workers[0].pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_loader_process_outlives_a_killed_parent_by_seconds_alone():
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANED], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    with parent:
        worker = int(parent.stdout.readline())
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if "State:\tZ" in pathlib.Path(f"/proc/{worker}/status").read_text():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("still there")


def test_processes_end_though_one_of_them_holds_the_lock_of_their_end_for_ever():
    batches = iter(Images().loader("train"))
    next(batches)
    iterator = batches.gi_frame.f_locals["iterator"]
    with iterator._workers_done_event._cond:  # as a process that was killed in the middle of asking leaves it
        ending = threading.Thread(target=iterator._shutdown_workers, daemon=True)
        ending.start()
        ending.join(10)
        assert not ending.is_alive()
    assert all(worker.exitcode is not None for worker in iterator._workers)


HELD = []


def collect():
    HELD.clear()
    gc.collect()


def test_a_process_that_collects_an_iterator_it_has_inherited_ends_nobody_elses():
    data = Images()
    batches = iter(data.loader("train"))
    HELD[:] = [batches]
    count = 1 + len(next(batches)[1])
    del batches
    list(Images(collect, 1).loader("train"))
    assert count + sum(len(labels) for _, labels in HELD.pop()) > 300


def test_a_loader_that_is_dropped_in_the_middle_leaves_no_process():
    batches = iter(Images().loader("train"))
    next(batches)
    workers = batches.gi_frame.f_locals["iterator"]._workers
    del batches
    assert all(worker.exitcode is not None for worker in workers)


ORPHAN = """
import multiprocessing, os, sys, threading, time

def child(path):
    from igpt.data import end_with_the_parent
    threading.Thread(target=end_with_the_parent, args=(os.getppid(),), daemon=True).start()
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.replace(path + ".part", path)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=(sys.argv[2],))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", [one for one in multiprocessing.get_all_start_methods() if one != "spawn"])
def test_a_worker_ends_with_the_process_that_asked_for_it_however_it_was_started(tmp_path, method):
    """From a fork server, too, which Python 3.14 takes on Linux and which is the worker's parent to the system."""
    (tmp_path / "main.py").write_text(ORPHAN)
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py"), method, str(pid)]) as parent:
        while not pid.exists() and parent.poll() is None:
            time.sleep(0.05)
        parent.kill()
    worker, ends = int(pid.read_text()), time.monotonic() + 60
    while alive(worker) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        not pathlib.Path(f"/proc/{pid}/status").exists()
        or "State:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    )
