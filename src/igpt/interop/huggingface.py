"""Reading a folder of Hugging Face's `ImageGPT`: config.json, the weights, and the palette if it is there."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.interop.imagegpt import CLASS_HEAD, HEAD, NEEDED, TOKENS, bias_shapes, pairs
from igpt.interop.imported import Imported, Shape, check_shapes
from igpt.interop.weights import Weights, open_weights, read_json
from igpt.model import TransformerConfig
from igpt.palette import check_colors
from igpt.system import UserError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
BACKBONE = "transformer."
MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older files hold
SIZES = {"n_layer": 24, "n_embd": 512, "n_head": 8, "n_positions": 1024, "vocab_size": 513}  # with their defaults


def read_huggingface(folder: str | Path) -> Imported:
    """Weights of an `ImageGPTForCausalImageModeling`, also with a class head beside; float32, each read on its own.

    An `ImageGPTForImageClassification` and an `ImageGPTModel` have no head for pixels: it is zeros, as in a new one.

    Raises:
        UserError: a file is missing or damaged; the config asks for what our network does not do; a tensor is missing,
            unknown, of another shape or type; or a bias is not zero.
    """
    folder = Path(folder)
    given = read_json(folder / CONFIG)
    config = config_of(given, str(folder / CONFIG))
    weights = open_weights(folder)
    if config.n_layers > (count := len(weights.shapes)):
        raise UserError(f"{folder / CONFIG}: n_layer is {config.n_layers}, but there are only {count} tensors")
    prefix = BACKBONE if TOKENS.removeprefix(BACKBONE) in weights.shapes else ""  # which an ImageGPTModel leaves out
    found = {prefix + name: shape for name, shape in weights.shapes.items()}
    found = {name: shape for name, shape in found.items() if not MASKS.fullmatch(name)}
    expected: dict[str, Shape] = {TOKENS: (config.vocab_size + 1, config.d_model)}
    expected |= {pair.theirs: pair.shape for pair in pairs(config)} | bias_shapes(config)
    if CLASS_HEAD in found:
        expected[CLASS_HEAD] = (max([2, *found[CLASS_HEAD][:1]]), config.d_model)
    has_head = HEAD in found or not (prefix or CLASS_HEAD in found)
    if not has_head:
        del expected[HEAD]
    check_shapes(found, expected, str(folder))
    state, class_head = _read(weights, [name.removeprefix(prefix) for name in expected], prefix, config, str(folder))
    if not has_head:
        state["head.weight"] = torch.zeros(config.vocab_size, config.d_model)
    processor = folder / PROCESSOR
    palette = clusters_of(read_json(processor), str(processor), needed=False) if processor.is_file() else None
    names = () if class_head is None else names_of(given.get("id2label"), len(class_head))
    return Imported(config, True, state, class_head, palette, str(folder), has_head, names)


def names_of(given: Any, count: int) -> tuple[str, ...]:
    """The names of so many classes from a config's `id2label`; none where it does not name them all."""
    numbers = [str(label) for label in range(count)]
    known = isinstance(given, dict) and given.keys() == set(numbers)
    return tuple(str(given[number]) for number in numbers) if known else ()


def config_of(given: dict[str, Any], name: str) -> TransformerConfig:
    """Our config for the content of a config.json; dropout, which is for training alone, has no say.

    Raises:
        UserError: a field has a value that our network cannot do; names the field.
    """
    for field, value in NEEDED.items():
        if given.get(field, value) != value:
            raise UserError(f"{name}: {field} is {given[field]!r}, which this network does not do; it needs {value!r}")
    sizes = {field: given.get(field, default) for field, default in SIZES.items()}
    for field, size in sizes.items():
        least = 2 if field == "vocab_size" else 1
        if type(size) is not int or size < least:
            raise UserError(f"{name}: {field} is {size!r}, not a number of at least {least}")
    layers, width, heads, positions, vocab = sizes.values()
    if width % heads:
        raise UserError(f"{name}: n_head {heads} does not divide n_embd {width}")
    if given.get("n_inner") not in (None, 4 * width):
        raise UserError(f"{name}: n_inner is {given['n_inner']!r}; this network needs 4 * n_embd = {4 * width}")
    return TransformerConfig(layers, width, heads, positions, vocab - 1)


def clusters_of(given: dict[str, Any], name: str, needed: bool = True) -> Tensor | None:
    """Colours float32 `(V, 3)` in [-1, 1] from the content of a preprocessor_config.json.

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


def _read(
    weights: Weights, names: list[str], prefix: str, config: TransformerConfig, source: str
) -> tuple[dict[str, Tensor], Tensor | None]:
    """State dict under our names, and the class head; `prefix` is what the names in the files lack.

    A bias on a residual path cannot be folded into other weights: what block l adds everywhere, blocks below l must not
    see. So biases must be zero, as those of the released weights are.
    """
    ours = {pair.theirs: pair for pair in pairs(config)}
    biases = bias_shapes(config)
    state: dict[str, Tensor] = {}
    class_head = None
    for stored, tensor in weights.read(names):
        name = prefix + stored
        if not tensor.is_floating_point():
            raise UserError(f"{source}: the tensor {name} has type {tensor.dtype}; float32, 16 or bfloat16 is needed")
        if name in biases:
            if tensor.count_nonzero():
                most = f"up to {float(tensor.abs().max()):.3g}"
                raise UserError(f"{source}: the bias {name} is not zero ({most}); this network has no biases")
        elif name == TOKENS:
            state["wte.weight"], state["sos"] = _copied(tensor[:-1]), _copied(tensor[-1])
        elif name == CLASS_HEAD:
            class_head = _copied(tensor)
        else:
            state[ours[name].ours] = _copied(tensor.T if ours[name].transposed else tensor)
    return state, class_head


def _copied(view: Tensor) -> Tensor:
    """A float32 copy in memory of its own, never a view of a mapped file."""
    return torch.empty(view.shape, dtype=torch.float32).copy_(view)
