import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from igpt.system.hardware import MMAP_THRESHOLD, TRIM_THRESHOLD, keep_freed_memory

COUNT = """
import resource, sys
import torch
from igpt.system.hardware import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 << 20).fill_(1.0)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
found = [faults() for _ in range(30)]  # the first rounds lay out the memory that the later ones use
print(sum(found[-10:]))
"""


def page_faults(how):
    return int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    assert page_faults("leave") > 100_000
    assert page_faults("keep") < 10_000


def test_an_older_library_gets_the_largest_threshold_that_it_takes(monkeypatch):
    """As mallopt(3) describes it: anything for trimming, but at most 32 MiB for blocks that are mapped alone."""
    taken = {}

    def mallopt(option, value):
        if option == MMAP_THRESHOLD and value > 4 * 1024 * 1024 * 8:
            return 0
        taken[option] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert taken == {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 32 << 20}
