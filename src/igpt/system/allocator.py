"""Has the C library keep the memory that was freed, for commands that run a network on a CPU.

Every operation of a network takes a block of memory and gives it back. glibc returns blocks of some size to the kernel
at once, which then hands out the next one page by page, each cleared: on small machines that took longer than the
arithmetic (docs/performance.md).
"""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1  # bytes; the largest that mallopt takes
KEPT_FORMERLY = 32 << 20  # bytes; the largest MMAP_THRESHOLD of glibc up to 2.34 or so, which refuses more


def keep_freed_memory() -> None:
    """Keep freed blocks in the process from now on; does nothing where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl, Windows
        return
    for option in (TRIM_THRESHOLD, MMAP_THRESHOLD):
        if not mallopt(option, KEPT):  # a refused threshold would stay small: glibc has stopped adjusting it by then
            mallopt(option, KEPT_FORMERLY)
