"""Where the tasks of `igpt tokenize` run: processes of this machine, or the workers of a Dask cluster."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import torch

from igpt.data import end_with_the_parent
from igpt.palette import Palette
from igpt.system import UserError
from igpt.tokenization.tasks import Job, Record, Task

PATIENCE = 10  # seconds until a scheduler that does not answer is given up

_job: Job | None = None  # of a worker process


def run_here(job: Job, tasks: list[Task], workers: int) -> Iterator[Record]:
    """Run tasks in so many processes; records come in the order in which tasks are done.

    Raises:
        UserError: a process was killed, or what a task raises.
    """
    if workers == 1:
        yield from map(job.run, tasks)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(job,))
    try:
        for future in as_completed([pool.submit(_run, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "--workers: a process was killed, perhaps for want of memory; run the same command again to go on, with "
            "fewer --workers or smaller --shard_images"
        ) from error
    finally:  # what is done has its record: nobody waits for the rest of an interrupted run
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # one that has only just begun would still say that it was ended
            child.join()


def _begin(job: Job) -> None:
    """Prepare a worker process: one thread, no say in interrupts, and a silent end when the main process ends it."""
    global _job
    _job = job
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the main process's handler, inherited, says what is not so here
    threading.Thread(target=end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _run(task: Task) -> Record:
    assert _job is not None
    return _job.run(task)


def run_on_dask(job: Job, tasks: list[Task], scheduler: str) -> Iterator[Record]:
    """Run tasks on the workers of a Dask scheduler, which see the images and the output by the same paths.

    Raises:
        UserError: Dask is not installed, the scheduler does not answer, workers die again and again, or what a task
            raises.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed import as_completed as as_completed_there
    except ImportError as error:
        raise UserError("--engine dask: Dask is not installed; pip install 'dask[distributed]'") from error
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(f"--scheduler {scheduler} does not answer; start one with 'dask scheduler'") from error
    with client:
        sent = pickle.dumps(replace(job, palette=Palette(job.palette.colors)))  # without its table of 32 MiB
        held = client.submit(pickle.loads, sent, pure=False)  # made anew where its worker dies
        futures = [client.submit(_run_there, held, task, pure=False) for task in tasks]
        try:
            for future in as_completed_there(futures):
                yield future.result()
        except KilledWorker as error:
            raise UserError("--engine dask: workers died again and again; see their logs, and run again") from error
        finally:
            client.cancel(futures)


def _run_there(job: Job, task: Task) -> Record:
    torch.set_num_threads(1)
    return job.run(task)
