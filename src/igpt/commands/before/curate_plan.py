"""`igpt curate --dry-run`: what the whole would take, by a few images that go the whole way."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from igpt.curation import Blocks, Curation, Effort, Embedding, Engine, Making, Pool, Task

FEW = 512  # images of each kind that are tried
BLOCK = 128  # of these at a time: the quickest block counts
ROW = 100  # bytes of the manifest, and of arrays in memory, for each image
PROCESS = 160 << 20  # bytes that each process holds for itself, beside an index


@dataclass(frozen=True)
class Pools:
    """The images to choose from, those to be near to, and those that must not be among them."""

    data: Pool
    reference: Pool | None
    tests: Pool | None

    def few(self) -> "Pools":
        """A sample of each."""
        near, tests = (pool.few(FEW) if pool is not None else None for pool in (self.reference, self.tests))
        return Pools(self.data.few(FEW), near, tests)

    def counts(self) -> list[int]:
        """How many images of each."""
        return [len(pool) if pool is not None else 0 for pool in vars(self).values()]


Decide = Callable[[Pools, Blocks, int, Engine], tuple[Embedding, Curation]]  # with so many images in a block


@dataclass
class Timed:
    """Makes blocks in this process, and notes of each stage the CPU seconds an image of its quickest block."""

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, work: Making, tasks: Sequence[Task]) -> Iterator[int]:
        """See `Engine`."""
        for task in tasks:
            began, stage = time.process_time(), task.name.rpartition("-")[0]
            yield work.run(task)
            taken = (time.process_time() - began) / len(task.rows)
            self.seconds[stage] = min(self.seconds.get(stage, taken), taken)


def foretold(pools: Pools, decide: Decide, processes: int) -> str:
    """What the whole will take, as text; a sample goes the whole way in a temporary folder."""
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        images, _ = decide(pools.few(), Blocks(Path(folder)), BLOCK, timed)
        record, width = images.parts[0].dtype.itemsize, images.parts[0].dtype["feature"].shape[0]
    count, near, tests = pools.counts()
    efforts = {"overlap": Effort(tests), "pairs0": Effort(count), "nearest": Effort(near, width)}
    speed, took, every = Effort.speed(), timed.seconds, count + near + tests
    embedding = took["data"] * every
    comparing = sum(took.get(name, 0) * count + effort.seconds(count, speed) for name, effort in efforts.items())
    hours, share = (embedding + comparing) / 3600, embedding / (embedding + comparing)
    largest = max(effort.bytes() for effort in efforts.values())
    disk = record * every + sum(effort.bytes() for effort in efforts.values()) + Effort(count).bytes()  # of two rounds
    memory = held() + 2 * largest + ROW * count + (processes * (PROCESS + largest) if processes > 1 else 0)
    return (
        f"{count:,} images, {near:,} of the reference, {tests:,} to test on; at most {FEW} of each were tried\n"
        f"disk: {size(disk)} of work, {size(ROW * count)} of manifest\n"
        f"memory: {size(memory)}\n"
        f"time: {hours:.3g} CPU hours, {hours / processes:.3g} hours with {processes} processes here, to embed "
        f"{share:.0%} of it; more where many pictures are alike, or disks are slow\n"
    )


def held() -> int:
    """The most bytes that this process has held; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.1f} MiB"
