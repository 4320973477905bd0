"""Ways of computing attention on this CPU, from the projection's output to the next one's input.

    python benchmarks/bench_attention.py [--dtypes float32 bfloat16] [--widths 24 32 64] [--tokens 64 128 ...]

Milliseconds, medians of rounds in turn within one process: forward alone without gradients, and forward with backward.
"blocks of R" is `igpt.model.attend_in_blocks`, "fused" PyTorch's kernel. What is quickest here on a kind of CPU
stands in `igpt.model.attention.dense`. An older kind is emulated by ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from harness import keep_freed_memory
from torch import Tensor
from torch.nn import functional as F

from igpt.model import attend_in_blocks
from igpt.system import cpu_kind

HEADS, POSITIONS = 4, 16384  # positions of all images, times the heads of each
ROWS = (32, 64, 128, 256, 512)
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def ways_of(tokens: int) -> dict[str, Way]:
    """All that make sense for so many tokens."""
    fused = partial(F.scaled_dot_product_attention, is_causal=True)
    rows = sorted({min(count, tokens) for count in ROWS if tokens <= 16 * count})
    blocks = {f"blocks of {count}": partial(attend_in_blocks, causal=True, rows=count) for count in rows}
    return {"fused": fused, **blocks}


def layer(way: Way, projected: Tensor) -> Tensor:
    """The attention of a block, `(B, T, 3 D)` to `(B, T, D)`."""
    parts = projected.unflatten(-1, (3, HEADS, -1)).unbind(2)
    q, k, v = (part.transpose(1, 2) for part in parts)
    return way(q, k, v).transpose(1, 2).flatten(2)


def both(way: Way, projected: Tensor, grad: Tensor) -> None:
    projected.grad = None
    layer(way, projected).backward(grad)


def forward(way: Way, projected: Tensor) -> None:
    with torch.no_grad():
        layer(way, projected)


def milliseconds(calls: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Median of each; one round is one call of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(times.values()))) < 3:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(found)) for name, found in times.items()}


def show(dtype: str, width: int, tokens: int, seconds: float) -> None:
    projected = torch.randn(POSITIONS // tokens // HEADS or 1, tokens, 3 * HEADS * width).to(getattr(torch, dtype))
    grad = torch.randn_like(projected[..., : HEADS * width])
    ways = ways_of(tokens)
    once = milliseconds({name: partial(forward, way, projected) for name, way in ways.items()}, seconds)
    projected.requires_grad_()
    twice = milliseconds({name: partial(both, way, projected, grad) for name, way in ways.items()}, seconds)
    for kind, found in (("forward", once), ("both", twice)):
        best = min(found, key=lambda name: found[name])
        cells = "  ".join(f"{name} {spent:.2f}{'*' if name == best else ''}" for name, spent in found.items())
        print(f"{dtype:8} width {width:3} tokens {tokens:4} {kind:8} {cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--widths", nargs="+", type=int, default=[24, 32, 64])
    parser.add_argument("--tokens", nargs="+", type=int, default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case")
    options = parser.parse_args()
    keep_freed_memory()
    print(f"CPU kind {cpu_kind()}, {torch.get_num_threads()} threads; the quickest has a *")
    for dtype in options.dtypes:
        for width in options.widths:
            for tokens in options.tokens:
                show(dtype, width, tokens, options.seconds)


if __name__ == "__main__":
    main()
