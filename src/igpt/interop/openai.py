"""Reading the TensorFlow checkpoints that OpenAI released with the paper: iGPT-S, M and L, AR and BERT.

Names and shapes are those of the released code. `sos` stands there beside the V rows of `wte`, and only in AR models.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from igpt.interop.imported import Imported, Shape, check_shapes
from igpt.interop.tensorbundle import TensorBundle, bundle_prefix
from igpt.model import TransformerConfig
from igpt.system import UserError

QUERY = "model/h0/attn/q_proj"
CLASS_HEAD = "model/clf/wclf"  # only there in checkpoints that were fine-tuned
LAYER = re.compile(r"model/h(\d+)/")
# What training leaves beside the weights: Adam's two slots of every weight, its powers of beta, the number of steps.
OF_TRAINING = re.compile(r"(^|/)(adam\w*|beta[12]_power\w*|global_step)(/|$)", re.IGNORECASE)
RANKS = ((re.compile(r"/(g|sos)$"), 1), (re.compile(r"/attn/[qkvc]_proj$"), 3))  # of all others 2


def is_openai(path: str | Path) -> bool:
    """Whether `path` is the prefix of a TensorFlow checkpoint, or one of its files."""
    return bundle_prefix(Path(path)) is not None


def read_openai(path: str | Path) -> Imported:
    """Weights of a released TensorFlow checkpoint; tensors are mapped one by one and copied, so memory stays low.

    A checkpoint with `model/sos` is AR, one without is BERT. What Adam left beside the weights is passed over.

    Args:
        path: prefix of the checkpoint, or one of its files.

    Raises:
        UserError: names the tensor that is missing, has another shape, is not known, is cut short or damaged.
    """
    prefix = bundle_prefix(Path(path))
    if prefix is None:
        raise UserError(f"{path} is no TensorFlow checkpoint: no file PREFIX.index belongs to it; give the PREFIX")
    bundle = TensorBundle(prefix)
    source = str(bundle.prefix)
    shapes = {name: entry.shape for name, entry in bundle.entries.items() if not OF_TRAINING.search(name)}
    found = {name: _without_leading_ones(name, shape) for name, shape in shapes.items()}
    config = _config(found, source)
    expected = _expected(config)
    if CLASS_HEAD in found:
        expected[CLASS_HEAD] = (*found[CLASS_HEAD][:1], config.d_model)
    check_shapes(found, expected, source)
    for name in expected:
        bundle.check_type(name)

    def read(name: str) -> Tensor:
        return torch.from_numpy(bundle.tensor(name)).view(expected[name])

    class_head = read(CLASS_HEAD).clone() if CLASS_HEAD in found else None
    return Imported(config, config.sos, _state(read, config), class_head, None, source)


def _without_leading_ones(name: str, shape: Shape) -> Shape:
    """The shape without the ones that some writers put in front, down to the rank that a tensor of this name has."""
    rank = next((rank for pattern, rank in RANKS if pattern.search(name)), 2)
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    return shape


def _config(found: dict[str, Shape], source: str) -> TransformerConfig:
    """Shape of the network, from the shapes of its tensors."""
    for name, rank in (("model/wpe", 2), ("model/wtet", 2), (QUERY, 3)):
        if name not in found:
            raise UserError(f"{source} lacks the tensor {name}; it is incomplete, or no checkpoint of iGPT")
        if len(found[name]) != rank or 0 in found[name]:
            raise UserError(f"{source}: the tensor {name} has shape {found[name]}; it needs {rank} sizes above 0")
    heads, of_head, width = found[QUERY]
    if heads * of_head != width:
        raise UserError(f"{source}: the tensor {QUERY} has shape {found[QUERY]}; {heads} x {of_head} is not {width}")
    layers = {match[1] for name in found if (match := LAYER.match(name))}
    return TransformerConfig(
        n_layers=len(layers),
        d_model=width,
        n_heads=heads,
        n_positions=found["model/wpe"][0],
        vocab_size=found["model/wtet"][0],
        sos="model/sos" in found,
    )


def _expected(config: TransformerConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of such a model, without the class head."""
    width, heads = config.d_model, config.n_heads
    shapes: dict[str, Shape] = {
        "model/wpe": (config.n_positions, width),
        "model/wte": (config.vocab_size, width),
        "model/wtet": (config.vocab_size, width),
        "model/ln_f/g": (width,),
    }
    if config.sos:
        shapes["model/sos"] = (width,)
    for layer in range(config.n_layers):
        shapes |= {f"model/h{layer}/ln_{i}/g": (width,) for i in (1, 2)}
        shapes |= {f"model/h{layer}/attn/{kind}_proj": (heads, width // heads, width) for kind in "qkvc"}
        shapes[f"model/h{layer}/mlp/c_fc/w"] = (width, 4 * width)
        shapes[f"model/h{layer}/mlp/c_proj/w"] = (4 * width, width)
    return shapes


def _state(read: Callable[[str], Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The tensors under our names, as a `Linear` holds them: (out, in). Each is a copy: no file stays mapped.

    A query is `q[h, e] = sum_f q_proj[h, e, f] x[f]`, so its matrix is (out, in) as it stands. The others are applied
    from the right (`x @ w`), attention's output after its heads are joined: their matrices are turned.
    """

    def turned(matrix: Tensor) -> Tensor:
        return matrix.T.clone(memory_format=torch.contiguous_format)

    state = {
        "wte.weight": read("model/wte").clone(),
        "wpe": read("model/wpe").clone(),
        "ln_f.weight": read("model/ln_f/g").clone(),
        "head.weight": read("model/wtet").clone(),
    }
    if config.sos:
        state["sos"] = read("model/sos").clone()
    for layer in range(config.n_layers):
        theirs, ours = f"model/h{layer}", f"blocks.{layer}"
        state[f"{ours}.ln_1.weight"] = read(f"{theirs}/ln_1/g").clone()
        state[f"{ours}.attn.qkv.weight"] = torch.cat([read(f"{theirs}/attn/{k}_proj").flatten(0, 1) for k in "qkv"])
        state[f"{ours}.attn.proj.weight"] = turned(read(f"{theirs}/attn/c_proj").flatten(0, 1))
        state[f"{ours}.ln_2.weight"] = read(f"{theirs}/ln_2/g").clone()
        state[f"{ours}.mlp.fc.weight"] = turned(read(f"{theirs}/mlp/c_fc/w"))
        state[f"{ours}.mlp.proj.weight"] = turned(read(f"{theirs}/mlp/c_proj/w"))
    return state
