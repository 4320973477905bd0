"""Features of all 9 layers at the small size: igpt's one pass beside `ImageGPT` with all hidden states.

    python benchmarks/bench_features.py [--rounds 5] [--device cuda]

Batch 4, bfloat16 by autocast, nothing kept for a backward pass, the same weights. A feature is the mean over the
positions of a layer's states behind the norm that the next block begins with; the peer asks for `output_hidden_states`
and takes its norms and means afterwards. The last of its states has been through the final norm already. As in
bench_train.py, the peer is timed a second time with igpt's allocator setting.
"""

from typing import Any

import torch
from harness import Work, agree, arguments, igpt_side, measure, peer_side
from networks import SIZES, array, igpt_module, image_gpt, tokens_of, with_start
from peaks import peaks
from plan import feature_operations
from results import bound_of, row, save_rows
from torch import Tensor

BATCHES = 2  # a round on a CPU
ON_CUDA = 50  # times as many
AT_LEAST = 9.0
TOLERANCE = 0.02  # features are of size 1, bfloat16 has 8 bits
CONFIG, BATCH = SIZES["small"]


def feature_work(extract: Any, batches: int, device: str) -> Work:
    tokens = tokens_of(CONFIG, BATCH, device)

    @torch.inference_mode()
    def found() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            features: Tensor = extract(tokens)
        return features

    def one_round() -> float:
        for _ in range(batches):
            features = found()
        features.sum().item()  # a GPU has then done everything
        return batches * BATCH

    return Work(one_round, lambda: {"features": array(found())})


def igpt_work(batches: int, device: str) -> Work:
    module = igpt_module(CONFIG, device, compile=True).eval()
    module.configure_model()
    layers = list(range(CONFIG.n_layers + 1))
    return feature_work(lambda tokens: module.features(tokens, layers), batches, device)


def image_gpt_work(batches: int, device: str) -> Work:
    network = image_gpt(CONFIG, device).eval()
    norms = [block.ln_1 for block in network.transformer.h]

    def extract(tokens: Tensor) -> Tensor:
        states = network(with_start(tokens, CONFIG), use_cache=False, output_hidden_states=True).hidden_states
        normed = [norm(state) for norm, state in zip(norms, states[:-1], strict=True)]
        return torch.stack([state.float().mean(1) for state in (*normed, states[-1])])

    return feature_work(extract, batches, device)


def main() -> None:
    options = arguments(__doc__, rounds=5, device=True).parse_args()
    cuda = options.device == "cuda"
    peak = peaks(options.device)
    how = (BATCHES * (ON_CUDA if cuda else 1), options.device)
    keeping = igpt_side("ImageGPT, memory kept", image_gpt_work, *how)
    found = measure(
        [igpt_side("igpt compiled", igpt_work, *how), peer_side("ImageGPT", image_gpt_work, *how), keeping],
        options.rounds,
    )
    ours, peer, kept = found["igpt compiled"], found["ImageGPT"], found[keeping.name]
    bound = bound_of("operations", feature_operations(CONFIG), ours.rate, peak["bf16"], peak["device"])
    note = agree(ours, peer, features=TOLERANCE)
    work = "features of 9 layers, small" + (f", {peak['device']}" if cuda else "")
    rows = [row(work, "images", ours, peer, at_least=None if cuda else AT_LEAST, bound=bound, note=note)]
    rows.append(row(work, "images", ours, kept, bound=bound, note="any program can make igpt's allocator setting"))
    save_rows(options.results, rows, peak)


if __name__ == "__main__":
    main()
