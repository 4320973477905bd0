"""Training steps in float32 on a CPU, igpt beside nanoGPT, x-transformers and `ImageGPT`, at three sizes.

    python benchmarks/bench_float32.py [--rounds 5] [--sizes digits 14x14 small] [--ways eager compiled]

For CPUs without bfloat16, which most laptops have. One is emulated, the threads' number apart, by the environment
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2; the first line says what was run on.

A step is forward, backward and fused AdamW on random tokens. All sides keep freed memory (`igpt.system`), as any
program can: what is compared is the arithmetic. nanoGPT is `nanogpt.py`; where igpt is compiled, block by block, it is
compiled as a whole, as its own training does. The other two run as they come. ImageGPT has igpt's weights, and its
logits, loss and gradient are igpt's; the others have the same dimensions.
"""

import os
from functools import partial
from typing import Any

import torch
from harness import Measured, Side, Work, agree, arguments, measure
from nanogpt import NanoGPT
from networks import array, igpt_module, image_gpt, tokens_of, with_start, x_transformer
from results import cpu_model, line_of, row
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.model import TransformerConfig
from igpt.system import cpu_kind

SIZES = {  # config, images a batch, steps a round
    "digits": (TransformerConfig(6, 96, 4, n_positions=64, vocab_size=17), 64, 5),
    "14x14": (TransformerConfig(6, 96, 4, n_positions=196, vocab_size=17), 64, 2),
    "small": (TransformerConfig(8, 256, 8), 4, 1),
}
EAGER, COMPILED = "eager", "compiled"
IGPT, NANO_GPT, X_TRANSFORMERS, IMAGE_GPT = "igpt", "nanoGPT", "x-transformers", "ImageGPT"
TOLERANCES = {"logits": 1e-4, "loss": 1e-5, "gradient": 1e-4}  # the gradient relative to its largest entry
AT_LEAST = {size: {NANO_GPT: 1.0, X_TRANSFORMERS: 1.0} for size in ("digits", "small")}
AT_LEAST["small"][IMAGE_GPT] = 2.5
ENVIRONMENT = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


class Shifted(nn.Module):
    """A peer's network with a start of sequence in front: logits `(B, T, V)` of tokens `(B, T)`."""

    def __init__(self, network: Any, config: TransformerConfig, **how: Any) -> None:
        super().__init__()
        self.network, self.config, self.how = network, config, how

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.network(with_start(tokens, self.config), **self.how)
        logits: Tensor = getattr(found, "logits", found)
        return logits


def igpt(config: TransformerConfig, way: str) -> tuple[nn.Module, Tensor]:
    module = igpt_module(config, compile=way == COMPILED)
    module.configure_model()
    network = module.transformer
    network.forward = partial(network.forward, causal=True)
    return network, network.wpe


def nano_gpt(config: TransformerConfig, way: str) -> tuple[Any, Tensor]:
    network = NanoGPT(config)
    shifted = Shifted(network, config)
    return torch.compile(shifted) if way == COMPILED else shifted, network.wpe.weight


def x_transformers(config: TransformerConfig, way: str) -> tuple[nn.Module, Tensor]:
    network = x_transformer(config)
    return Shifted(network, config), network.pos_emb.emb.weight


def hugging_face(config: TransformerConfig, way: str) -> tuple[nn.Module, Tensor]:
    network = image_gpt(config)
    return Shifted(network, config, use_cache=False), network.transformer.wpe.weight


MAKERS = {IGPT: igpt, NANO_GPT: nano_gpt, X_TRANSFORMERS: x_transformers, IMAGE_GPT: hugging_face}


def step_work(name: str, size: str, way: str) -> Work:
    """Steps of one network, from tokens to new weights."""
    config, batch, steps = SIZES[size]
    network, positions = MAKERS[name](config, way)
    network.train()
    tokens = tokens_of(config, batch)
    adam = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def loss_of(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    def one_round() -> float:
        for _ in range(steps):
            loss_of(network(tokens)).backward()
            adam.step()
            adam.zero_grad()
        return steps * batch

    def check() -> dict[str, Any]:
        logits = network(tokens)
        loss = loss_of(logits)
        loss.backward()
        assert positions.grad is not None
        gradient = positions.grad / positions.grad.abs().max()
        adam.zero_grad()
        return {"logits": array(logits[:1]), "loss": array(loss), "gradient": array(gradient)}

    return Work(one_round, check)


def show(size: str, way: str, found: dict[str, Measured]) -> None:
    """What igpt's speed is of each peer's."""
    note = agree(found[IGPT], found[IMAGE_GPT], **TOLERANCES)
    for peer in (NANO_GPT, X_TRANSFORMERS, IMAGE_GPT):
        asked = AT_LEAST.get(size, {}).get(peer)
        kept = row(f"{size}, {way}", "images", found[IGPT], found[peer], at_least=asked)
        print(line_of(kept | {"note": note if peer == IMAGE_GPT else ""}), flush=True)


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--ways", nargs="+", default=[EAGER, COMPILED], choices=[EAGER, COMPILED])
    options = parser.parse_args()
    emulated = " ".join(f"{name}={os.environ[name]}" for name in ENVIRONMENT if name in os.environ)
    print(f"CPU kind {cpu_kind()} on {cpu_model()}, {torch.get_num_threads()} threads; {emulated or 'not emulated'}")
    for way in options.ways:
        for size in options.sizes:
            sides = [Side(name, partial(step_work, name, size, way), keeps_memory=True) for name in MAKERS]
            show(size, way, measure(sides, options.rounds))


if __name__ == "__main__":
    main()
