"""Reading a folder of Hugging Face's `ImageGPT` (names: docs/interop.md; network: Chen et al. 2020, section 2.2)."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.interop.imported import Imported, check_shapes
from igpt.interop.names import BACKBONE, CLASS_HEAD, HEAD, MASKS, TOKENS, bias_shapes, pairs, their_shapes
from igpt.interop.weights import Weights, open_weights, read_json
from igpt.model import NORM_EPS, TransformerConfig
from igpt.palette import check_colors
from igpt.system import UserError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
SIZES = {"n_layer": 24, "n_embd": 512, "n_head": 8, "n_positions": 1024, "vocab_size": 513}  # with their defaults
ALIASES = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}
NEEDED: dict[str, Any] = {  # what our network has no choice about; left out of a config, it is their default
    "model_type": "imagegpt",
    "activation_function": "quick_gelu",
    "layer_norm_epsilon": NORM_EPS,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_huggingface(folder: str | Path) -> Imported:
    """Weights of an `ImageGPTForCausalImageModeling`, also with a class head beside; float32, each read on its own.

    An `ImageGPTForImageClassification` and an `ImageGPTModel` have no head for pixels: it is zeros, as in a new one.

    Raises:
        UserError: a file is missing or damaged; the config asks for what our network does not do; a tensor is missing,
            unknown, of another shape or type; or a bias is not zero.
    """
    folder = Path(folder)
    config = config_of(read_json(folder / CONFIG), str(folder / CONFIG))
    weights = open_weights(folder)
    prefix = BACKBONE if TOKENS.removeprefix(BACKBONE) in weights.shapes else ""  # which an ImageGPTModel leaves out
    found = {prefix + name: shape for name, shape in weights.shapes.items() if not MASKS.fullmatch(prefix + name)}
    if config.n_layers > len(found):
        raise UserError(f"{folder / CONFIG}: n_layer is {config.n_layers}, but there are only {len(found)} tensors")
    expected = their_shapes(config)
    if CLASS_HEAD in found:
        expected[CLASS_HEAD] = (max([2, *found[CLASS_HEAD][:1]]), config.d_model)
    has_head = HEAD in found or not (prefix or CLASS_HEAD in found)
    if not has_head:
        del expected[HEAD]
    check_shapes(found, expected, str(folder))
    state, class_head = _ours(weights, config, str(folder), list(expected), prefix)
    if not has_head:
        state["head.weight"] = torch.zeros(config.vocab_size, config.d_model)
    processor = folder / PROCESSOR
    palette = clusters_of(read_json(processor), str(processor), needed=False) if processor.is_file() else None
    return Imported(config, True, state, class_head, palette, str(folder), has_head)


def config_of(given: dict[str, Any], name: str) -> TransformerConfig:
    """Our config for the content of a config.json; dropout, which is for training alone, has no say.

    Raises:
        UserError: a field has a value that our network cannot do; names the field.
    """
    for field, value in NEEDED.items():
        if given.get(field, value) != value:
            raise UserError(f"{name}: {field} is {given[field]!r}, which this network does not do; it needs {value!r}")
    sizes = {field: given.get(field, given.get(ALIASES.get(field, ""), size)) for field, size in SIZES.items()}
    for field, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 + (field == "vocab_size"):
            raise UserError(f"{name}: {field} is {size!r}, not a number of at least {1 + (field == 'vocab_size')}")
    width, heads, positions = sizes["n_embd"], sizes["n_head"], sizes["n_positions"]
    if width % heads:
        raise UserError(f"{name}: n_head {heads} does not divide n_embd {width}")
    if given.get("n_inner") not in (None, 4 * width):
        raise UserError(f"{name}: n_inner is {given['n_inner']!r}; this network needs 4 * n_embd = {4 * width}")
    if math.isqrt(positions) ** 2 != positions:
        raise UserError(f"{name}: n_positions {positions} is no square; this network is for square images")
    return TransformerConfig(sizes["n_layer"], width, heads, positions, sizes["vocab_size"] - 1)


def clusters_of(given: dict[str, Any], name: str, needed: bool = True) -> Tensor | None:
    """Colours float32 `(k, 3)` in [-1, 1] from the content of a preprocessor_config.json.

    Args:
        needed: whether a file without clusters is an error, else None.

    Raises:
        UserError: the clusters are no colours.
    """
    if given.get("clusters") is None and not needed:
        return None
    try:
        colors = torch.tensor(given.get("clusters"), dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{name} has no clusters, a list of colours in [-1, 1]; give another --palette") from error
    return check_colors(colors, f"clusters of {name}")


def _ours(
    weights: Weights, config: TransformerConfig, source: str, names: list[str], prefix: str
) -> tuple[dict[str, Tensor], Any]:
    """State dict under our names, and the class head. Every tensor is a copy in memory of its own.

    Args:
        names: of the tensors to read.
        prefix: what their names in the files lack.
    """
    state: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    matched = {pair.theirs: pair for pair in pairs(config.n_layers)}
    biases = bias_shapes(config)

    def take(name: str, tensor: Tensor) -> None:
        name = prefix + name
        if tensor.dtype not in FLOATS:
            raise UserError(f"{source}: the tensor {name} has type {tensor.dtype}; float32, 16 or bfloat16 is needed")
        if name in biases:
            refuse_bias(name, tensor, source)
        elif name == TOKENS:
            state["wte.weight"], state["sos"] = copied(tensor[:-1]), copied(tensor[-1])
        elif name == CLASS_HEAD:
            kept[name] = copied(tensor)
        else:
            pair = matched[name]
            state[pair.ours] = copied(tensor.T if pair.transposed else tensor)

    weights.read_each([name.removeprefix(prefix) for name in names], take)
    return state, kept.get(CLASS_HEAD)


def copied(view: Tensor) -> Tensor:
    """A float32 copy in memory of its own, never a view of a mapped file."""
    return torch.empty(view.shape, dtype=torch.float32).copy_(view)


def refuse_bias(name: str, bias: Tensor, source: str) -> None:
    """Raise a UserError that names the tensor and its largest value, unless all are zero.

    A bias on a residual path cannot be folded into other weights: what block l adds everywhere, blocks below l must not
    see. The released weights have zeros.
    """
    if bias.count_nonzero():
        largest = float(bias.abs().max())
        raise UserError(f"{source}: the bias {name} is not zero (up to {largest:.3g}); this network has no biases")
