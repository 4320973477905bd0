"""How time and memory of a training step grow with the sequence, the batch and the depth; what recomputing costs.

    python benchmarks/bench_growth.py [--full]

igpt's step in bfloat16, not compiled, every case in a process of its own, whose peak memory is all that it held:
libraries, weights, optimizer and activations. The base is the small size (T 1024, 8 layers, batch 4); each other case
changes one thing. --full adds T 4096, the larger batches and depths, and all of iGPT-S at batch 1, 2 and 4 with and
without recomputing. What is estimated not to fit in the machine's memory, or 24 GiB, is not run.
"""

import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from harness import apart, arguments, keep_freed_memory, peak_bytes
from results import circumstances, memory_bytes, save

from igpt.model import LONG, PRESETS, TransformerConfig, parameter_count

BASE = TransformerConfig(8, 256, 8)
LIBRARIES = 1.5 * 2**30  # torch, Lightning and the compiler
LIMIT = 24 * 2**30
OPTIMIZER = 16  # bytes a parameter: itself, its gradient and Adam's two moments in float32
ACTIVATIONS = 72  # bytes a token, layer and unit of width, that the backward pass needs
RECOMPUTED = 6  # the same where only the inputs of blocks are kept


@dataclass(frozen=True)
class Case:
    """One process: a network, a batch, whether activations are computed again in the backward pass, and its steps."""

    name: str
    config: TransformerConfig
    batch: int = 4
    recompute: bool = False
    steps: int = 3

    @property
    def estimate(self) -> float:
        """Bytes that are needed, on the safe side; logits kept in three copies, softmaxes as in attention."""
        config = self.config
        tokens = self.batch * config.n_positions
        kept = RECOMPUTED if self.recompute else ACTIVATIONS
        activations = tokens * config.d_model * (config.n_layers * kept + ACTIVATIONS)
        shares = 2 * tokens * config.n_positions * config.n_heads * (1 if self.recompute else config.n_layers)
        shares = shares if config.n_positions <= LONG else 0
        logits = 3 * 4 * tokens * config.vocab_size
        return LIBRARIES + OPTIMIZER * parameter_count(config) + activations + shares + logits


def short_cases() -> list[Case]:
    return [
        Case("small, T 256", replace(BASE, n_positions=256)),
        Case("small", BASE),
        Case("small, recomputing", BASE, recompute=True),
    ]


def full_cases() -> list[Case]:
    longer = replace(BASE, n_positions=4096)
    cases = [Case("small, T 4096, batch 1", longer, 1), Case("small, T 4096, batch 1, recomputing", longer, 1, True)]
    cases += [Case(f"small, batch {batch}", BASE, batch) for batch in (1, 16)]
    cases += [Case(f"small, {layers} layers", replace(BASE, n_layers=layers)) for layers in (4, 16)]
    for batch in (1, 2, 4):
        cases += [Case(f"iGPT-S, batch {batch}", PRESETS["S"], batch, steps=2)]
        cases += [Case(f"iGPT-S, batch {batch}, recomputing", PRESETS["S"], batch, True, steps=2)]
    return short_cases() + cases


def step_times(case: Case) -> dict[str, Any]:
    """Seconds of each step after the first, and the most memory held."""
    keep_freed_memory()
    import torch
    from networks import igpt_module, tokens_of

    module = igpt_module(case.config, recompute=case.recompute).train()
    adam = torch.optim.Adam(module.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    tokens, times = tokens_of(case.config, case.batch), []
    for _ in range(case.steps + 1):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(tokens, torch.Generator())
        loss.backward()
        adam.step()
        adam.zero_grad()
        times.append(time.perf_counter() - started)
    return {"times": times[1:], "peak_bytes": peak_bytes(), "threads": torch.get_num_threads()}


def run(case: Case) -> dict[str, Any]:
    """What came of a case, or why nothing did."""
    facts = {"recompute": case.recompute, "batch": case.batch, **case.config.to_dict(), **circumstances()}
    if reason := refusal(case):
        return {**facts, "missing": reason}
    try:
        found = apart(step_times, case)
    except BrokenProcessPool:
        return {**facts, "missing": "the process was killed"}
    return {**facts, "seconds": float(np.median(found.pop("times"))), "steps": case.steps, **found}


def refusal(case: Case) -> str | None:
    """Why a case is not run."""
    if case.estimate > min(LIMIT, memory_bytes()):
        return f"needs about {case.estimate / 2**30:.0f} GiB"
    return None


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--full", action="store_true", help="all cases, up to iGPT-S")
    options = parser.parse_args()
    for case in full_cases() if options.full else short_cases():
        found = run(case)
        save(options.results, "growth", {case.name: found})
        shown = found.get("missing") or f"{found['seconds']:.2f} s a step, {found['peak_bytes'] / 2**30:.2f} GiB"
        print(f"{case.name:40} {shown} (estimated {case.estimate / 2**30:.1f} GiB)", flush=True)


if __name__ == "__main__":
    main()
