"""Names and shapes of Hugging Face's `ImageGPT` beside ours (table in docs/interop.md)."""

import re
from dataclasses import dataclass

from igpt.interop.imported import Shape
from igpt.model import TransformerConfig

BACKBONE = "transformer."
HEAD = "lm_head.weight"
CLASS_HEAD = "score.weight"
TOKENS = "transformer.wte.weight"  # V colours, then sos, which is a row of its own with us
MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older files hold


@dataclass(frozen=True)
class Pair:
    """One tensor under both names; Conv1D is input-major, a Linear output-major."""

    theirs: str
    ours: str
    transposed: bool = False


def pairs(n_layers: int) -> list[Pair]:
    """Every tensor that has one name on each side: all but `wte` with its sos, and the biases."""
    linear = [
        ("attn.c_attn", "attn.qkv"),
        ("attn.c_proj", "attn.proj"),
        ("mlp.c_fc", "mlp.fc"),
        ("mlp.c_proj", "mlp.proj"),
    ]
    found = [Pair("transformer.wpe.weight", "wpe")]
    for i in range(n_layers):
        found += [Pair(f"transformer.h.{i}.{ln}.weight", f"blocks.{i}.{ln}.weight") for ln in ("ln_1", "ln_2")]
        found += [Pair(f"transformer.h.{i}.{a}.weight", f"blocks.{i}.{b}.weight", True) for a, b in linear]
    return [*found, Pair("transformer.ln_f.weight", "ln_f.weight"), Pair(HEAD, "head.weight")]


def bias_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """The biases that their projections have and ours have not."""
    width = config.d_model
    sizes = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": 4 * width, "mlp.c_proj": width}
    return {f"transformer.h.{i}.{n}.bias": (size,) for i in range(config.n_layers) for n, size in sizes.items()}


def their_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of `ImageGPTForCausalImageModeling`."""
    d, v = config.d_model, config.vocab_size
    within = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    shapes: dict[str, Shape] = {TOKENS: (v + 1, d), HEAD: (v, d), "transformer.wpe.weight": (config.n_positions, d)}
    for pair in pairs(config.n_layers):
        kind = ".".join(pair.theirs.split(".")[3:5])
        shapes.setdefault(pair.theirs, within.get(kind, (d,)))
    return shapes | bias_shapes(config)
