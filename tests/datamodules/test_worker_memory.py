"""What a loader's process costs does not grow with the number of files."""

import gc
import multiprocessing
from pathlib import Path

import pytest

from igpt_datamodules.files import Stored, StoredList

MEMORY = Path("/proc/self/smaps_rollup")
FEW, MANY = 1_000, 200_000


def private_bytes():
    """Memory of this process alone: pages that it wrote to."""
    line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("Private_Dirty"))
    return int(line.split()[1]) * 1024


def read_all(stored, pipe):
    """Reads every name, and sends what that cost."""
    gc.disable()
    before = private_bytes()
    for index in range(len(stored)):
        stored[index]
    pipe.send(private_bytes() - before)


def cost_of_reading(stored):
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=read_all, args=(stored, theirs))
    process.start()
    cost = ours.recv()
    process.join()
    return cost


@pytest.mark.skipif(not MEMORY.exists(), reason="only Linux tells")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_that_reads_every_name_copies_no_memory_for_each():
    names = [Stored(f"/data/class{index % 100}/image{index:07d}.png") for index in range(MANY)]
    costs = [cost_of_reading(StoredList(names[:count])) for count in (FEW, MANY)]
    assert costs[1] - costs[0] < 4 * MANY  # bytes
    assert cost_of_reading(names) > 40 * MANY  # as a list of objects does
