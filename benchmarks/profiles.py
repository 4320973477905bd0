"""Where the time of a piece of work goes: milliseconds a step by kind of operation, from PyTorch's profiler.

    python benchmarks/profiles.py [--only digits small features sampling encoding]

Each piece is the compiled igpt side of its benchmark, in a process of its own. "Untouched" is the median time of a step
without the profiler, whose own price falls on what is called often. A loop is what the compiler made of everything that
is not a product; "calls" are the checks and Python around compiled graphs.
"""

import argparse
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from harness import Work, apart, keep_freed_memory

IMAGES, SEEN, STEPS = 8, 512, 20
KINDS = {  # the first that matches an operation's name
    "products": r"aten::(mm|addmm_?|linear)$|mkldnn::_linear|igpt::packed",
    "attention's products": r"aten::(bmm|baddbmm)|scaled_dot_product",
    "loops with a softmax": r"cpp_fused.*(softmax|amax|exp)",
    "loops with an activation": r"cpp_fused.*sigmoid",
    "other loops": r"cpp_fused",
    "calls of graphs": r"Compiled|Dynamo|AOTDispatcher",
    "optimizer": r"Optimizer|_fused_adam",
    "copies and casts": r"aten::(copy_|clone|cat|_to_copy|contiguous)$",
    "look-up": r"aten::index_select",
}
REST = "rest"


def digits() -> Work:
    from bench_train import igpt_work

    return igpt_work("digits", 1, "cpu")


def small() -> Work:
    from bench_train import igpt_work

    return igpt_work("small", 1, "cpu")


def features() -> Work:
    from bench_features import igpt_work

    return igpt_work(1, "cpu")


def sampling() -> Work:
    """A token more for eight images that have 512."""
    import torch
    from networks import SIZES, igpt_module, tokens_of

    from igpt.model import Decoder

    config, _ = SIZES["small"]
    tokens = tokens_of(config, IMAGES)
    decoder = Decoder(igpt_module(config).eval().transformer, IMAGES, compile=True)

    @torch.inference_mode()
    def one_more() -> float:
        decoder.next_logits(tokens[:, :SEEN] if decoder.seen == 0 else tokens[:, :1])
        return IMAGES

    return Work(one_more)


def encoding() -> Work:
    from bench_encoding import BATCH, colors, encoding_work, patches

    from igpt.palette import Palette

    return encoding_work(Palette(colors()).encode, patches().split(BATCH)[:-1], 1)


WORKS: dict[str, Callable[[], Work]] = {
    "digits": digits,
    "small": small,
    "features": features,
    "sampling": sampling,
    "encoding": encoding,
}


def profile(make: Callable[[], Work]) -> dict[str, float]:
    """Milliseconds a step by kind, and untouched."""
    keep_freed_memory()
    import torch
    from torch.profiler import ProfilerActivity

    torch._inductor.config.cpp.enable_kernel_profile = True  # loops under names of their own
    work = make()
    assert work.round is not None
    for _ in range(5):
        work.round()
    untouched = float(np.median([seconds_of(work.round) for _ in range(STEPS)]))
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            work.round()
    found = dict.fromkeys([*KINDS, REST], 0.0)
    for event in recorded.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / STEPS / 1e3
    return {**found, "untouched": untouched * 1e3}


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), REST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(WORKS), choices=list(WORKS))
    for name in parser.parse_args().only:
        parts = apart(partial(profile, WORKS[name]))
        total = parts.pop("untouched")
        print(f"{name}: {total:.1f} ms untouched, {sum(parts.values()):.1f} ms in all under the profiler")
        for kind, spent in sorted(parts.items(), key=lambda part: -part[1]):
            if spent >= 0.005 * total:
                print(f"  {kind:26} {spent:8.2f} ms", flush=True)


if __name__ == "__main__":
    main()
