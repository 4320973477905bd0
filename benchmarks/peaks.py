"""What this machine can do at most: matrix products at the shapes of a GPT, and reading memory.

    python benchmarks/peaks.py [--device cuda]

The best median of several shapes counts. Every benchmark measures this itself, in a process of its own, so that its
fractions are of what the machine gave at that time.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import apart

PRODUCTS = ((4096, 256, 1024), (4096, 1024, 256), (4096, 512, 2048), (4096, 2048, 512))
SECONDS = 0.25  # each case
DRAM_BYTES, CACHE_BYTES = 1 << 29, 1 << 20


def peaks(device: str = "cpu") -> dict[str, Any]:
    """Operations per second in bfloat16 and float32, and bytes per second from memory and from the cache."""
    found: dict[str, Any] = apart(measure_peaks, device)
    return found


def measure_peaks(device: str) -> dict[str, Any]:
    """The measurement itself."""
    import torch

    types = {"bf16": torch.bfloat16, "fp32": torch.float32}
    found: dict[str, Any] = {"device": device_name(device)}
    for name, dtype in types.items():
        found[name] = max(product_rate(device, dtype, *shape) for shape in PRODUCTS)
    found["dram"] = read_rate(device, DRAM_BYTES)
    found["cache"] = read_rate(device, CACHE_BYTES)
    return found


def device_name(device: str) -> str:
    """What the figures are of."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def product_rate(device: str, dtype: Any, rows: int, inner: int, columns: int) -> float:
    """Operations per second of `(rows, inner) @ (inner, columns)`; a multiplication and an addition are two."""
    import torch

    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    return 2 * rows * inner * columns / median_seconds(lambda: torch.mm(a, b, out=out), device)


def read_rate(device: str, size: int) -> float:
    """Bytes per second of summing `size` bytes of float32, again and again."""
    import torch

    values = torch.ones(size // 4, device=device)
    repeats = max(1, (1 << 24) // size)  # one call at a cache's size is too short to be timed

    def read() -> None:
        for _ in range(repeats):
            values.sum()

    return repeats * size / median_seconds(read, device)


def median_seconds(call: Callable[[], Any], device: str) -> float:
    """Median time of a call."""
    for _ in range(2):
        call()
    times, begun = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begun < SECONDS:
        started = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def wait_for(device: str) -> None:
    """Until the device has done what was asked of it."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    for name, value in peaks(parser.parse_args().device).items():
        print(f"{name:8} {value if isinstance(value, str) else f'{value / 1e9:,.0f} G/s'}")
