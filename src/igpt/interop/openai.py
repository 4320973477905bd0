"""Reading the TensorFlow checkpoints that OpenAI released with the paper: iGPT-S, M and L, AR and BERT.

Names and shapes are those of the released code. `sos` stands there beside the V rows of `wte`, and only in AR models.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from igpt.interop.imported import Imported, Pair, Shape, check_shapes
from igpt.interop.tensorbundle import TensorBundle, bundle_prefix
from igpt.model import TransformerConfig
from igpt.system import UserError

QUERY = "model/h0/attn/q_proj"
CLASS_HEAD = "model/clf/wclf"  # only there in checkpoints that were fine-tuned
LAYER = re.compile(r"model/h(\d+)/")
# What training leaves beside the weights: Adam's two slots of every weight, its powers of beta, the number of steps.
OF_TRAINING = re.compile(r"(^|/)(adam\w*|beta[12]_power\w*|global_step)(/|$)", re.IGNORECASE)


def is_openai(path: str | Path) -> bool:
    """Whether `path` is the prefix of a TensorFlow checkpoint, or one of its files."""
    return bundle_prefix(Path(path)) is not None


def read_openai(path: str | Path) -> Imported:
    """Weights of a released TensorFlow checkpoint, read one by one, so that they are in memory once.

    A checkpoint with `model/sos` is AR, one without is BERT. What Adam left beside the weights is passed over.

    Args:
        path: prefix of the checkpoint, or one of its files.

    Raises:
        UserError: names the tensor that is missing, has another shape, is not known, is cut short or damaged.
    """
    prefix = bundle_prefix(Path(path))
    if prefix is None:
        raise UserError(f"{path} is no TensorFlow checkpoint: no file PREFIX.index belongs to it; give the PREFIX")
    bundle, source = TensorBundle(prefix), str(prefix)
    found = {name: entry.shape for name, entry in bundle.entries.items() if not OF_TRAINING.search(name)}
    config = _config(found, source)
    pairs = _pairs(config)
    expected = {pair.theirs: pair.shape for pair in pairs}
    if CLASS_HEAD in found:
        expected[CLASS_HEAD] = (*_core(found[CLASS_HEAD], 2)[:1], config.d_model)
    check_shapes({n: _core(s, len(expected.get(n, s))) for n, s in found.items()}, expected, source)

    state: dict[str, Tensor] = {}
    for pair in pairs:
        tensor = torch.from_numpy(bundle.tensor(pair.theirs)).view(pair.shape)
        matrix = tensor.flatten(0, 1) if tensor.dim() == 3 else tensor
        matrix = matrix.T.contiguous() if pair.transposed else matrix
        state[pair.ours] = torch.cat([state[pair.ours], matrix]) if pair.ours in state else matrix
    head = torch.from_numpy(bundle.tensor(CLASS_HEAD)).view(expected[CLASS_HEAD]) if CLASS_HEAD in found else None
    return Imported(config, config.sos, state, head, None, source)


def _core(shape: Shape, rank: int) -> Shape:
    """The shape without the ones that some writers put in front, down to `rank` sizes."""
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    return shape


def _config(found: dict[str, Shape], source: str) -> TransformerConfig:
    """Shape of the network, from the shapes of its tensors."""
    shapes = []
    for name, rank in (("model/wpe", 2), ("model/wtet", 2), (QUERY, 3)):
        if name not in found:
            raise UserError(f"{source} lacks the tensor {name}; it is incomplete, or no checkpoint of iGPT")
        shapes.append(_core(found[name], rank))
        if len(shapes[-1]) != rank or 0 in found[name]:
            raise UserError(f"{source}: the tensor {name} has shape {found[name]}; it needs {rank} sizes above 0")
    (positions, _), (colors, _), (heads, of_head, width) = shapes
    if heads * of_head != width:
        raise UserError(f"{source}: the tensor {QUERY} has shape {found[QUERY]}; {heads} x {of_head} is not {width}")
    layers = {match[1] for name in found if (match := LAYER.match(name))}
    return TransformerConfig(len(layers), width, heads, positions, colors, sos="model/sos" in found)


def _pairs(config: TransformerConfig) -> list[Pair]:
    """Every tensor of such a model but the class head; q, k and v go into one matrix, one below the other.

    A query is `q[h, e] = sum_f q_proj[h, e, f] x[f]`, so its matrix is (out, in) as it stands, like that of a `Linear`.
    The others are applied from the right (`x @ w`), attention's output after its heads are joined: they are transposed.
    """
    d, heads = config.d_model, config.n_heads
    found = [
        Pair("model/wpe", "wpe", (config.n_positions, d)),
        Pair("model/wte", "wte.weight", (config.vocab_size, d)),
        Pair("model/wtet", "head.weight", (config.vocab_size, d)),
        Pair("model/ln_f/g", "ln_f.weight", (d,)),
    ]
    if config.sos:
        found.append(Pair("model/sos", "sos", (d,)))
    for i in range(config.n_layers):
        theirs, ours, head = f"model/h{i}", f"blocks.{i}", (heads, d // heads, d)
        found += [Pair(f"{theirs}/{ln}/g", f"{ours}.{ln}.weight", (d,)) for ln in ("ln_1", "ln_2")]
        found += [Pair(f"{theirs}/attn/{kind}_proj", f"{ours}.attn.qkv.weight", head) for kind in "qkv"]
        found.append(Pair(f"{theirs}/attn/c_proj", f"{ours}.attn.proj.weight", head, True))
        found.append(Pair(f"{theirs}/mlp/c_fc/w", f"{ours}.mlp.fc.weight", (d, 4 * d), True))
        found.append(Pair(f"{theirs}/mlp/c_proj/w", f"{ours}.mlp.proj.weight", (4 * d, d), True))
    return found
