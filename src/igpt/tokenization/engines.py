"""Where independent tasks run: processes of this machine, or the workers of a Dask cluster.

`igpt tokenize` writes its shards by it, and `igpt scale` does its runs.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import torch

from igpt.data import end_with_the_parent
from igpt.system import UserError

PATIENCE = 10  # seconds until a scheduler that does not answer is given up
Task = TypeVar("Task", contravariant=True)
Record = TypeVar("Record", covariant=True)


class Work(Protocol[Task, Record]):
    """What all tasks have in common; it can be pickled, and so can tasks, records and errors."""

    def run(self, task: Task, /) -> Record:
        """Do one task, whoever runs it, once more where a worker died; return what came of it."""


_work: Work[Any, Any] | None = None  # of a worker process


def check_engine(engine: str, scheduler: str | None) -> None:
    """Raise a UserError unless Dask, and it alone, has a scheduler."""
    if engine == "dask" and scheduler is None:
        raise UserError("--engine dask needs the address of its scheduler: --scheduler tcp://HOST:8786")
    if engine == "local" and scheduler is not None:
        raise UserError(f"--scheduler {scheduler} is for --engine dask; give both or neither")


def run_here(work: Work[Task, Record], tasks: Sequence[Task], workers: int) -> Iterator[Record]:
    """Run tasks in so many processes, or one after the other in this one; records come as tasks are done.

    Raises:
        UserError: a process was killed, or what a task raises.
    """
    if workers == 1:
        yield from map(work.run, tasks)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(work,))
    try:
        for future in as_completed([pool.submit(_run, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "--workers: a process was killed, perhaps for want of memory; run the same command again to go on, with "
            "fewer --workers"
        ) from error
    finally:  # what is done has its record: nobody waits for the rest of an interrupted run
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # one that has only just begun would still say that it was ended
            child.join()


def _begin(work: Work[Any, Any]) -> None:
    """Prepare a worker process: one thread, no say in interrupts, and a silent end when the main process ends it."""
    global _work
    _work = work
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the main process's handler, inherited, says what is not so here
    threading.Thread(target=end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _run(task: Any) -> Any:
    assert _work is not None
    return _work.run(task)


def run_on_dask(work: Work[Task, Record], tasks: Sequence[Task], scheduler: str) -> Iterator[Record]:
    """Run tasks on the workers of a Dask scheduler, which see all files by the same paths.

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
        held = client.submit(pickle.loads, pickle.dumps(work), pure=False)  # made anew where its worker dies
        futures = [client.submit(_run_there, held, task, pure=False) for task in tasks]
        try:
            for future in as_completed_there(futures):
                yield future.result()
        except KilledWorker as error:
            raise UserError("--engine dask: workers died again and again; see their logs, and run again") from error
        finally:
            client.cancel(futures)


def _run_there(work: Work[Any, Any], task: Any) -> Any:
    torch.set_num_threads(1)
    return work.run(task)
