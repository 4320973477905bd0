"""DataLoader workers that need no shared memory, and whose death ends the run with one line instead of a hang.

Torch hands batches over in /dev/shm. Containers often have 64 MiB of it, and where it is full a batch is lost, and its
loader waits for it for ever. Here batches go through pipes. All that is read of torch's loader by private names (torch
2.11 to 2.15) is in this file.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import default_collate_fn_map
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from igpt.system import ASKED_TO_END, UserError

UNSENT = 70  # exit code of a loader process whose batch could not be handed over
MOMENT = 2.0  # seconds until a process whose pipe has broken is gone, too

CAUSES = {  # how a loader process ended: what that says, and what to do
    "SIGKILL": "was killed, as the system does when memory runs out; lower --data.init_args.num_workers or batch_size, "
    "or give the machine or container more memory",
    "SIGBUS": "had a bus error, as when /dev/shm is full; give the container more (docker run --shm-size 1g), or set "
    "--data.init_args.num_workers 0",
    f"{UNSENT}": "could not hand over what it read; --data.init_args.num_workers 0 --debug shows why",
}


def collate(items: Any) -> Any:
    """Stack items into a batch, unless the data set has already done so."""
    return items if isinstance(items, tuple) else collate_by(items, collate_fn_map=STACKED)


def stack(tensors: list[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Tensors as one, in plain memory: torch would take shared memory for it in a loader process."""
    return torch.stack(tensors)


STACKED = {**default_collate_fn_map, Tensor: stack}


def as_bytes(tensor: Tensor) -> tuple[Any, ...]:
    """How a loader process pickles a tensor: its bytes, for `from_bytes`."""
    content = bytearray(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return from_bytes, (content, tensor.dtype, tuple(tensor.shape))


def from_bytes(content: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor again, in memory of its own."""
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.view(shape)


class WatchedLoader(DataLoader[Any]):
    """A DataLoader whose processes are watched, and killed where they are no longer needed (`WatchedIterator`)."""

    def _get_iterator(self) -> Any:
        return WatchedIterator(self) if self.num_workers else super()._get_iterator()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if getattr(self._iterator, "_shutdown", False):  # persistent processes that have ended
            self._iterator = None
        iterator = super().__iter__()
        yield from iterator


class WatchedIterator(_MultiProcessingDataLoaderIter):
    """Raises a UserError as soon as a worker has died, and kills its workers without waiting for a lock.

    Torch's own iterator waits for ever for a worker that died while it wrote; what else it notices, it raises at any
    place of the program. To end its workers it sets an event, whose lock a dead worker may hold for ever, and it does
    so in every forked process, too, that inherits an iterator and collects it as garbage.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._owner = os.getpid()
        super().__init__(loader)
        self._take_the_handler()

    def __next__(self) -> Any:
        return self._watched(super().__next__)

    def _reset(self, loader: DataLoader[Any], first_iter: bool = False) -> None:
        again = partial(super()._reset, loader, first_iter)
        again() if first_iter else self._watched(again)

    def _watched(self, act: Callable[[], Any]) -> Any:
        """What `act` gives, which waits for the processes; the wait is broken off as soon as one has ended."""
        WAITED_FOR.append(self)
        try:
            self.check_alive()
            return act()
        except StopIteration:
            raise
        except Exception as error:
            ended = self.ended(MOMENT if isinstance(error, OSError | EOFError) else 0)
            if ended is None:
                raise
            self._shutdown_workers()
            raise UserError(f"data: {ended}") from error
        finally:
            WAITED_FOR.remove(self)

    def _take_the_handler(self) -> None:
        """Replace torch's handler of SIGCHLD for these processes: it would raise at any moment."""
        if not self._worker_pids_set:
            return
        signal_handling._remove_worker_pids(id(self))  # type: ignore[attr-defined]
        self._worker_pids_set = False
        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGCHLD) is not on_child:
            EARLIER[:] = [signal.signal(signal.SIGCHLD, on_child)]

    def check_alive(self) -> None:
        """Raise a UserError where a process has ended, unless it was told to."""
        ended = self.ended()
        if ended is not None:
            raise UserError(ended)

    def ended(self, within: float = 0) -> str | None:
        """What is to be said about the first process that has ended, or ends within so many seconds, if any."""
        if self._shutdown:
            return None
        if within:
            wait([worker.sentinel for worker in self._workers], within)
        codes = [worker.exitcode for worker in self._workers]
        return next((cause(code) for code in codes if code is not None), None)

    def _shutdown_workers(self) -> None:
        """Kill the processes, which only read; called at the end of a pass or of training, and by `__del__`."""
        if self._shutdown or os.getpid() != self._owner or sys.is_finalizing():
            return
        self._shutdown = True
        if hasattr(self, "_pin_memory_thread"):  # first, since a killed process may leave it half a message
            self._pin_memory_thread_done_event.set()
            self._worker_result_queue.put((None, None))
            self._pin_memory_thread.join(MOMENT)
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join(MOMENT)
        for queue in (self._worker_result_queue, *self._index_queues):
            queue.cancel_join_thread()
            queue.close()


WAITED_FOR: list[WatchedIterator] = []  # those that the main thread is waiting for
EARLIER: list[Any] = []  # the handler of SIGCHLD that `on_child` has taken the place of


def on_child(number: int, frame: FrameType | None) -> None:
    """Handler of SIGCHLD: breaks off a wait for a process that is no more, then does what was done before."""
    for iterator in WAITED_FOR:
        iterator.check_alive()
    for handler in EARLIER:
        if callable(handler):
            handler(number, frame)


def cause(code: int) -> str:
    """Why a process may have ended with an exit code, and what to do."""
    name = signal.Signals(-code).name if code < 0 else str(code)
    if name in CAUSES:
        return f"a loader process {CAUSES[name]}"
    how = f"by {name}" if code < 0 else f"with exit code {name}"
    return (
        f"a loader process ended {how} in the middle of its work; igpt check --data ... finds broken images, and "
        "--data.init_args.num_workers 0 --debug shows where it ends"
    )


def begin_worker(worker: int) -> None:
    """What a loader process does first.

    It sends tensors as plain bytes. It leaves signals to its parent: a scheduler or Ctrl-C sends them to all, and the
    last step needs data. It ends where it cannot send what it has read, for which the parent would wait for ever, and
    where its parent has ended.
    """
    ForkingPickler.register(Tensor, as_bytes)
    for number in (*ASKED_TO_END, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(end_unsent)  # type: ignore[attr-defined]
    threading.Thread(target=end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def end_with_the_parent(parent: int) -> NoReturn:
    """Wait until the process that asked for this one has ended, then end it.

    Args:
        parent: by the system's account; where processes come from a fork server, that is the server, which lives on.
    """
    asked = multiprocessing.parent_process()
    while os.getppid() == parent and (asked is None or asked.is_alive()):
        time.sleep(MOMENT)
    os._exit(1)


def end_unsent(error: Exception, item: Any) -> NoReturn:
    """Stand-in for what a queue does with what it cannot send."""
    os._exit(UNSENT)


@atexit.register
def end_loaders() -> None:
    """Kill the loader processes that are left at the end: multiprocessing would wait for their answer to a SIGTERM."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
