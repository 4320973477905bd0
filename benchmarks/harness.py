"""Two or more ways of doing the same work, each in a process of its own, taking turns.

A side's allocator, compile caches, threads and peak memory are thus its own. The parent asks the sides for one round
each, A B A B ..., one at a time; what slows the machine down for a while slows down all of them.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Found = dict[str, np.ndarray]  # what a side computes, to be compared with what another computes
Ask = Callable[[], bool]  # waits for the parent; False where no further round is wanted
Tell = Callable[[float, float], None]  # seconds and units of the round that is done

ONLY = "the work"  # the name of a single piece
CACHE, OURS = "TORCHINDUCTOR_CACHE_DIR", "igpt-bench-"
SPAWN = multiprocessing.get_context("spawn")
RESULTS = Path(__file__).with_name("results.json")


@dataclass
class Work:
    """What a side has set up.

    Args:
        round: does one round of the work and returns the number of units done.
        check: what both sides must agree on; asked for before the first round, or after the last where `late`.
        drive: in place of `round`, for work that calls and is not called: asks for each round, and tells what it took.
    """

    round: Callable[[], float] | None = None
    check: Callable[[], Found] | None = None
    late: bool = False
    drive: Callable[[Ask, Tell], None] | None = None


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Args:
        name: as the table shows it.
        make: a module's function (or a `partial` of one, so that it can travel) that sets up in the worker one piece of
            work, or several under their names.
        keeps_memory: call `igpt.system.hardware.keep_freed_memory` first, as igpt's commands do.
        goes_on: takes part in the further rounds, of those sides alone whose ratio is near 1 and needs more of them.
    """

    name: str
    make: Callable[[], Work | dict[str, Work]]
    keeps_memory: bool = False
    goes_on: bool = False


@dataclass
class Measured:
    """What came of one side: units per second of each round, and of the worker at its end the rest."""

    name: str
    rates: list[float] = field(default_factory=list)
    further: list[float] = field(default_factory=list)
    found: Found = field(default_factory=dict)
    peak_bytes: int = 0
    threads: int = 0

    @property
    def rate(self) -> float:
        """Median."""
        return float(np.median(self.rates))


def igpt_side(name: str, function: Callable[..., Any], *arguments: Any, goes_on: bool = False) -> Side:
    """A side that runs as igpt's own commands do."""
    return Side(name, partial(function, *arguments), keeps_memory=True, goes_on=goes_on)


def peer_side(name: str, function: Callable[..., Any], *arguments: Any) -> Side:
    """A side that runs as another library does when nobody tunes it."""
    return Side(name, partial(function, *arguments))


def measure(sides: list[Side], rounds: int, warmup: int = 1, further: int = 0) -> dict[str, Measured]:
    """Run `warmup + rounds` rounds of every side in turn; the first are not counted. Then `further` of some sides.

    They are set up one after the other, so that a graph that two of them need is compiled once.
    """
    with together(sides) as workers:
        return take_turns(workers, ONLY, rounds, warmup, further)


@contextmanager
def together(sides: list[Side]) -> Iterator[list["Worker"]]:
    """A worker for each side."""
    with compile_cache(), ExitStack() as stack:
        workers = [stack.enter_context(Worker(side)) for side in sides]
        yield workers
        for worker in workers:
            worker.pipe.close()  # they wind up together, which takes each of them seconds


def take_turns(workers: list["Worker"], piece: str, rounds: int, warmup: int, further: int = 0) -> dict[str, Measured]:
    """`measure` of one piece of the work of workers that may have others; their peak memory is of all so far."""
    for worker in workers:
        worker.begin(piece)
    for _ in range(warmup):
        for worker in workers:
            worker.round("warm-up")
    for number in range(rounds):
        for worker in workers:
            worker.measured.rates.append(worker.round(f"round {number + 1}"))
    for number in range(further):
        for worker in workers:
            if worker.side.goes_on:
                worker.measured.further.append(worker.round(f"further {number + 1}"))
    for worker in workers:
        worker.end()
    return {worker.side.name: worker.measured for worker in workers}


@contextmanager
def compile_cache() -> Iterator[None]:
    """A new folder for what `torch.compile` builds, so that nothing depends on what an earlier program left there.

    Inside another one, that one's: what is compiled for one comparison then serves the next.
    """
    earlier = os.environ.get(CACHE)  # torch sets it, too, when it is imported
    if earlier is not None and OURS in earlier:
        yield
        return
    with TemporaryDirectory(prefix=OURS, ignore_cleanup_errors=True) as folder:
        os.environ[CACHE] = folder  # the workers inherit it
        try:
            yield
        finally:
            if earlier is None:
                del os.environ[CACHE]
            else:
                os.environ[CACHE] = earlier


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a new process.

    Raises:
        BrokenProcessPool: the process was killed, for instance because memory ran out.
    """
    with compile_cache(), ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


class Worker:
    """The parent's end of one side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.measured = Measured(side.name)
        self.pipe, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(there, side), daemon=True)
        self.process.start()
        there.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self.process.join(5)
        self.process.kill()

    def begin(self, piece: str) -> None:
        """Begin a piece of work: the first time the side sets itself up. Wait, and take what it found."""
        self.measured = Measured(self.side.name)
        self.pipe.send(piece)
        self.measured.found = self._receive()

    def round(self, name: str) -> float:
        """One round, shown under its name; units per second."""
        self.pipe.send(True)
        seconds, units = self._receive()
        print(f"  {name:10} {self.side.name:28} {seconds:8.3f} s  {units / seconds:12.5g} /s", flush=True)
        return float(units / seconds)

    def end(self) -> None:
        """Let the worker finish the piece."""
        self.pipe.send(False)
        found, self.measured.peak_bytes, self.measured.threads = self._receive()
        self.measured.found |= found

    def _receive(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.side.name}: the process died; is there enough memory?") from None
        if isinstance(answer, str):
            raise SystemExit(f"{self.side.name} failed:\n{answer}")
        return answer


def serve(pipe: Connection, side: Side) -> None:
    """The worker's whole life; a text in place of an answer is the reason why there is none."""
    pieces: dict[str, Work] = {}
    try:
        if side.keeps_memory:
            keep_freed_memory()
        while True:
            name = pipe.recv()
            if not pieces:
                made = side.make()
                pieces = made if isinstance(made, dict) else {ONLY: made}
            serve_piece(pipe, pieces[name])
    except EOFError:  # the parent has gone, or has what it wanted
        sys.exit()
    except BaseException:
        with suppress(OSError):  # nobody may be there to read it
            pipe.send(traceback.format_exc())


def serve_piece(pipe: Connection, work: Work) -> None:
    """All rounds of one piece."""
    check = work.check or dict
    pipe.send({} if work.late else check())
    run_rounds(work, pipe.recv, lambda seconds, units: pipe.send((seconds, units)))
    pipe.send((check() if work.late else {}, peak_bytes(), threads()))


def keep_freed_memory() -> None:
    """igpt's own allocator setting; imported here, so that a peer's worker knows nothing of igpt."""
    from igpt.system import keep_freed_memory as keep

    keep()


def run_rounds(work: Work, ask: Ask, tell: Tell) -> None:
    """One round for each that is asked for."""
    if work.drive is not None:
        work.drive(ask, tell)
        return
    assert work.round is not None
    while ask():
        started = time.perf_counter()
        units = work.round()
        tell(time.perf_counter() - started, units)


def peak_bytes() -> int:
    """Most memory that this process has held: its own high-water mark, since `ru_maxrss` begins with the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def threads() -> int:
    """Threads that torch computes with in this process."""
    import torch

    return torch.get_num_threads()


def agree(ours: Measured, peer: Measured, **tolerances: float) -> str:
    """Stop unless both sides found the same, each value to within its own tolerance; say how near they are.

    Raises:
        SystemExit: they differ, so their times are of different work.
    """
    notes = []
    for name, tolerance in tolerances.items():
        a, b = (np.asarray(side.found[name], dtype=np.float64) for side in (ours, peer))
        if a.shape != b.shape:
            raise SystemExit(f"{name}: {ours.name} has shape {a.shape}, {peer.name} {b.shape}; not the same work")
        apart_by = float(np.abs(a - b).max())
        if not apart_by <= tolerance:  # also for NaN
            raise SystemExit(f"{name}: {ours.name} and {peer.name} differ by {apart_by:.3g}, more than {tolerance:g}")
        notes.append(f"{name} the same" if apart_by == 0 else f"{name} within {apart_by:.1g}")
    return ", ".join(notes)


def arguments(doc: str | None, rounds: int, device: bool = False) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"counted rounds a side; {rounds} if left out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows are merged into")
    if device:
        parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser
