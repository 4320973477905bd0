"""Drawing images of 1024 tokens at the small size: `igpt.model.sampling.generate` beside `ImageGPT.generate`.

    python benchmarks/bench_sampling.py [--rounds 2] [--only 1 8] [--device cuda]

All in float32 with the same weights and a cache, from the full distribution (top_k = 0). At 64 images each side draws
the first 128 tokens alone, since the peer would take minutes. The last case completes 8 images of which 512 tokens are
given. igpt draws step by step and with `compile`, whose half a minute of compiling is not counted. Before the clock
runs, all draw 32 tokens greedily, which must be the same; this is also their warm-up. Each side draws all cases in one
process, whose peak memory is therefore of this case and those before it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from harness import Measured, Work, agree, arguments, igpt_side, peer_side, take_turns, together
from networks import SIZES, array, igpt_module, image_gpt, tokens_of
from peaks import peaks
from results import Row, bound_of, row, save_rows
from torch import Tensor

from igpt.model import PixelTransformer, generate, parameter_count

CONFIG, _ = SIZES["small"]
EAGER, GRAPH, PEER = "igpt", "igpt, one graph a token", "ImageGPT.generate"
CHECKED = 32  # tokens that are drawn greedily


@dataclass(frozen=True)
class Case:
    """How many images; how many of their tokens are given, and up to which the rest is drawn."""

    name: str
    batch: int
    given: int = 0
    end: int = CONFIG.n_positions
    at_least: float | None = None

    @property
    def drawn(self) -> int:
        return self.batch * (self.end - self.given)


CASES = {
    "1": Case("sampling, 1 image", 1, at_least=3.0),
    "8": Case("sampling, 8 images", 8, at_least=2.5),
    "64": Case("sampling, 64 images, first 128 tokens", 64, end=128),
    "half": Case("completing 8 images from 512 tokens", 8, given=512),
}


def igpt_works(names: list[str], device: str, compiled: bool) -> dict[str, Work]:
    network = igpt_module(CONFIG, device).eval().transformer
    return {name: igpt_work(CASES[name], network, device, compiled) for name in names}


def igpt_work(case: Case, network: PixelTransformer, device: str, compiled: bool) -> Work:
    images = tokens_of(CONFIG, case.batch, device)

    def draw(end: int, top_k: int) -> Tensor:
        position = torch.arange(CONFIG.n_positions, device=device)
        known = (position < case.given) | (position >= end)  # what comes later is not drawn
        return generate(network, images, known=known, top_k=top_k, compile=compiled)

    return sampling_work(case, draw)


def image_gpt_works(names: list[str], device: str) -> dict[str, Work]:
    network = image_gpt(CONFIG, device).eval()
    network.generation_config.eos_token_id = None  # no colour ends an image
    return {name: image_gpt_work(CASES[name], network, device) for name in names}


def image_gpt_work(case: Case, network: Any, device: str) -> Work:
    start = torch.full((case.batch, 1), CONFIG.vocab_size, device=device)
    prompt = torch.cat([start, tokens_of(CONFIG, case.batch, device)[:, : case.given]], dim=1)

    def draw(end: int, top_k: int) -> Tensor:
        how: dict[str, Any] = {"do_sample": False} if top_k == 1 else {"do_sample": True, "top_k": 0}
        mask = torch.ones_like(prompt)
        found: Tensor = network.generate(
            prompt, attention_mask=mask, max_length=end + 1, use_cache=True, pad_token_id=0, **how
        )
        return found[:, 1:]

    return sampling_work(case, draw)


def sampling_work(case: Case, draw: Any) -> Work:
    def one_round() -> float:
        draw(case.end, 0)[:, -1].tolist()  # a GPU has then done everything
        return case.drawn

    def check() -> dict[str, Any]:
        torch._dynamo.reset()  # or the graph of this batch would serve the next one, too, more slowly
        end = case.given + CHECKED
        return {"greedy tokens": array(draw(end, 1)[:, :end])}

    return Work(one_round, check)


def bytes_a_token(case: Case) -> float:
    """What must be read for each: all weights once a step for the whole batch, and the keys and values so far."""
    weights = 4 * parameter_count(CONFIG) / case.batch
    seen = (case.given + case.end) / 2
    return weights + 4 * 2 * CONFIG.n_layers * CONFIG.d_model * seen


def rows_of(case: Case, found: dict[str, Measured], peak: dict[str, Any], device: str) -> list[Row]:
    peer = found[PEER]
    work = case.name + (f", {peak['device']}" if device == "cuda" else "")
    rows = []
    for ours in (found[EAGER], found[GRAPH]):
        note = agree(ours, peer, **{"greedy tokens": 0.0})
        bound = bound_of("bytes", bytes_a_token(case), ours.rate, peak["dram"], peak["device"])
        at_least = case.at_least if device == "cpu" and ours.name == GRAPH else None
        rows.append(row(work, "tokens", ours, peer, at_least=at_least, bound=bound, note=note))
    return rows


def main() -> None:
    parser = arguments(__doc__, rounds=2, device=True)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    peak = peaks(options.device)
    sides = [igpt_side(name, igpt_works, options.only, options.device, name == GRAPH) for name in (EAGER, GRAPH)]
    with together([*sides, peer_side(PEER, image_gpt_works, options.only, options.device)]) as workers:
        for name in options.only:
            print(CASES[name].name, flush=True)
            found = take_turns(workers, name, options.rounds, warmup=0)
            save_rows(options.results, rows_of(CASES[name], found, peak, options.device), peak)


if __name__ == "__main__":
    main()
