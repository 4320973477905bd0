"""A training step and its peak of memory with patterns of attention, against the dense network, on long sequences.

    python benchmarks/bench_patterns.py [--side 64] [--layers 8] [--width 256] [--heads 8] [--steps 3] [--only rows]

Each way runs in a process of its own, since the peak is the process's. "dense, all scores" multiplies out every score
and masks them, as the released code does; "dense" is the fused kernel of PyTorch that igpt uses.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

WAYS: dict[str, Any] = {
    "dense": None,
    "dense, all scores": None,
    "rows: 4": [{"pattern": "rows", "k": 4}],
    "window: 4": [{"pattern": "window", "k": 4}],
    "axial": [{"pattern": "axial"}],
    "strided": [{"pattern": "strided"}],
    "fixed": [{"pattern": "fixed"}],
}


def train(name: str, given: argparse.Namespace) -> None:
    """Train a few steps; print the median in seconds, and the peak of memory above that of the imports in GB."""
    import torch

    from igpt.model import PixelTransformer, TransformerConfig, next_pixel_loss
    from igpt.model.attention import dense
    from igpt.system import keep_freed_memory

    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    if name == "dense, all scores":
        dense.F.scaled_dot_product_attention = all_scores
    shape = TransformerConfig(given.layers, given.width, given.heads, given.side**2, 512, attention=WAYS[name])
    model = PixelTransformer(shape).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    tokens = torch.randint(0, 512, (given.batch, given.side**2), device=device)
    before, steps = peak(device), []
    for _ in range(given.steps + 1):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=given.bf16):
            loss = next_pixel_loss(model(tokens, causal=True), tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        steps.append(time.perf_counter() - started)
    print(statistics.median(steps[1:]), peak(device) - before)


def all_scores(q: Any, k: Any, v: Any, is_causal: bool) -> Any:
    """Attention that makes all T x T scores."""
    import torch

    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v


def peak(device: str) -> float:
    """Peak of memory so far, in GB."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("side", 64), ("layers", 8), ("width", 256), ("heads", 8), ("batch", 1), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(WAYS))
    parser.add_argument("--train")
    given = parser.parse_args()
    if given.train:
        train(given.train, given)
        return
    found: dict[str, tuple[float, float]] = {}
    for name in given.only:
        words = [sys.executable, __file__, "--train", name, *sys.argv[1:]]
        seconds, memory = map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
        found[name] = seconds, memory
        first = next(iter(found.values()))
        print(f"{name:20} {seconds:7.2f} s {memory:6.2f} GB   {first[0] / seconds:5.2f} times as fast, "
              f"{memory / first[1]:.2f} of the memory", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
