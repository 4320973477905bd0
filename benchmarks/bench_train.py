"""Steps of AR training at three sizes: igpt compiled and through its Trainer, beside two other libraries.

    python benchmarks/bench_train.py [--rounds 5] [--sizes digits small] [--device cuda]

A step is forward, backward and fused Adam (betas 0.9 and 0.95), in bfloat16 by autocast, on random tokens. `ImageGPT`
(transformers) has igpt's own weights, no dropout and no cache; `x-transformers` the same dimensions with its flash
attention. Compared with ImageGPT are logits in float32, and of the path that is timed the first loss and the gradient
of the position embeddings, relative to its largest entry. The Trainer's row is `igpt fit` itself with a data module,
palette, callbacks and TensorBoard; its peer is the module's bare step, and the two go on alone for some rounds more,
since a few per cent are less than what a machine drifts.

ImageGPT is timed a second time with igpt's allocator setting, which any program can make: the C library otherwise gives
freed memory back to the kernel, and on some machines the page faults cost more than the arithmetic.
"""

from dataclasses import replace
from typing import Any

import torch
from harness import Measured, Side, Work, agree, arguments, igpt_side, measure, peer_side
from networks import SIZES, array, igpt_module, image_gpt, tokens_of, with_start, x_transformer
from peaks import peaks
from plan import training_operations
from results import Row, bound_of, row, save_rows
from torch import Tensor
from torch.nn import functional as F

STEPS = {"digits": 10, "small": 1, "S cut to 4 layers": 1}  # a round on a CPU
FURTHER = {"digits": 10, "small": 12, "S cut to 4 layers": 5}  # rounds of the Trainer and the bare step alone
ON_CUDA = 20  # times as many
TOLERANCES = {"logits": 1e-4, "loss": 1e-3, "gradient": 0.02}  # the last two in bfloat16
COMPILED, TRAINER = "igpt compiled", "igpt Trainer"
IMAGE_GPT, X_TRANSFORMERS, KEEPING = "ImageGPT", "x-transformers", "ImageGPT, memory kept"
AT_LEAST = {
    "digits": {IMAGE_GPT: 2.0},
    "small": {IMAGE_GPT: 3.3, X_TRANSFORMERS: 1.0, TRAINER: 1 / 1.05},  # the Trainer: at most 5 % more time a step
}


def train_work(network: Any, loss: Any, logits: Any, positions: Tensor, batch: int, steps: int, tokens: Tensor) -> Work:
    """Steps of any network; `loss` and `logits` are functions of the tokens, `positions` its position embeddings."""
    device = tokens.device.type
    adam = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def forward() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            value: Tensor = loss(tokens)
        return value

    def one_round() -> float:
        for _ in range(steps):
            value = forward()
            value.backward()
            adam.step()
            adam.zero_grad()
        value.item()  # a GPU has then done everything
        return steps * batch

    def check() -> dict[str, Any]:
        with torch.no_grad():
            first = array(logits(tokens[:1]))
        value = forward()
        value.backward()
        gradient = positions.grad / positions.grad.abs().max()
        adam.zero_grad()
        return {"logits": first, "loss": array(value), "gradient": array(gradient)}

    return Work(one_round, check)


def igpt_work(size: str, steps: int, device: str) -> Work:
    config, batch = SIZES[size]
    module = igpt_module(config, device, compile=True).train()
    tokens = tokens_of(config, batch, device)
    with torch.no_grad():
        first = module.transformer(tokens[:1], causal=True)  # before anything is compiled
    module.configure_model()
    rng = torch.Generator()
    positions = module.transformer.wpe
    return train_work(module, lambda x: module.loss(x, rng), lambda _: first, positions, batch, steps, tokens)


def image_gpt_work(size: str, steps: int, device: str) -> Work:
    config, batch = SIZES[size]
    network = image_gpt(config, device).train()

    def logits(tokens: Tensor) -> Tensor:
        found: Tensor = network(with_start(tokens, config), use_cache=False).logits
        return found

    tokens, positions = tokens_of(config, batch, device), network.transformer.wpe.weight
    return train_work(network, lambda x: cross_entropy(logits(x), x), logits, positions, batch, steps, tokens)


def x_transformers_work(size: str, steps: int, device: str) -> Work:
    config, batch = SIZES[size]
    network = x_transformer(config, device).train()

    def logits(tokens: Tensor) -> Tensor:
        found: Tensor = network(with_start(tokens, config))
        return found

    tokens, positions = tokens_of(config, batch, device), network.pos_emb.emb.weight
    return train_work(network, lambda x: cross_entropy(logits(x), x), logits, positions, batch, steps, tokens)


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def sides_of(size: str, steps: int, device: str) -> list[Side]:
    """Which sides take part; one more at the small size."""
    from through_trainer import trainer_work  # the other sides' workers need no command line

    common = (size, steps, device)
    sides = [
        igpt_side(COMPILED, igpt_work, *common, goes_on=True),
        peer_side(IMAGE_GPT, image_gpt_work, *common),
        peer_side(X_TRANSFORMERS, x_transformers_work, *common),
        igpt_side(TRAINER, trainer_work, *common, goes_on=True),
    ]
    if size == "small":
        sides.append(igpt_side(KEEPING, image_gpt_work, *common))
    return sides


def rows_of(size: str, found: dict[str, Measured], peak: dict[str, Any], device: str) -> list[Row]:
    """Every pair that says something; what is asked for is asked of a CPU."""
    config, _ = SIZES[size]
    ours = found[COMPILED]
    note = agree(ours, found[IMAGE_GPT], **TOLERANCES)
    asked = AT_LEAST.get(size, {}) if device == "cpu" else {}
    work = f"training, {size}" + (f", {peak['device']}" if device == "cuda" else "")

    def one(side: str, other: str, at_least: float | None = None, note: str = "") -> Row:
        return row_of(found[side], found[other], at_least, note)

    def row_of(ours: Measured, other: Measured, at_least: float | None, note: str) -> Row:
        bound = bound_of("operations", training_operations(config), ours.rate, peak["bf16"], peak["device"])
        return row(work, "images", ours, other, at_least=at_least, bound=bound, note=note)

    alone = [replace(found[side], rates=found[side].further) for side in (TRAINER, COMPILED)]
    rows = [
        one(COMPILED, IMAGE_GPT, asked.get(IMAGE_GPT), note),
        one(COMPILED, X_TRANSFORMERS, asked.get(X_TRANSFORMERS), "the same dimensions, other blocks and weights"),
        row_of(*alone, asked.get(TRAINER), trainer_note(*alone)),
    ]
    if size == "small":
        rows.append(one(COMPILED, KEEPING, note="any program can make igpt's allocator setting"))
    return rows


def trainer_note(trainer: Measured, bare: Measured) -> str:
    return f"{100 * (bare.rate / trainer.rate - 1):+.1f} % time a step, in {len(bare.rates)} rounds of these two alone"


def main() -> None:
    parser = arguments(__doc__, rounds=5, device=True)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    options = parser.parse_args()
    peak = peaks(options.device)
    for size in options.sizes:
        print(f"training, {size}", flush=True)
        steps = STEPS[size] * (ON_CUDA if options.device == "cuda" else 1)
        found = measure(sides_of(size, steps, options.device), options.rounds, further=FURTHER[size])
        save_rows(options.results, rows_of(size, found, peak, options.device), peak)


if __name__ == "__main__":
    main()
