"""Hugging Face's `ImageGPT`: its names and shapes beside ours (table in docs/interop.md), and our weights as its files.

D is the width, V the number of colours, T that of positions.
"""

from typing import Any

import torch
from torch import Tensor

from igpt.interop.imported import Pair, Shape
from igpt.model import NORM_EPS, TransformerConfig
from igpt.system import UserError

HEAD = "lm_head.weight"
CLASS_HEAD = "score.weight"
TOKENS = "transformer.wte.weight"  # (V + 1, D): the colours, then sos, which is a tensor of its own with us
BICUBIC = 3  # Pillow's number of the filter that igpt resizes with
NEEDED: dict[str, Any] = {  # what our network has no choice about; left out of a config.json, it is their default
    "model_type": "imagegpt",
    "activation_function": "quick_gelu",
    "layer_norm_epsilon": NORM_EPS,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}


def pairs(config: TransformerConfig) -> list[Pair]:
    """Every weight but `TOKENS`. A Conv1D holds (in, out), a Linear (out, in)."""
    d = config.d_model
    linear: dict[str, tuple[str, Shape]] = {
        "attn.c_attn": ("attn.qkv", (d, 3 * d)),
        "attn.c_proj": ("attn.proj", (d, d)),
        "mlp.c_fc": ("mlp.fc", (d, 4 * d)),
        "mlp.c_proj": ("mlp.proj", (4 * d, d)),
    }
    found = [Pair("transformer.wpe.weight", "wpe", (config.n_positions, d))]
    for i in range(config.n_layers):
        block, ours = f"transformer.h.{i}", f"blocks.{i}"
        found += [Pair(f"{block}.{ln}.weight", f"{ours}.{ln}.weight", (d,)) for ln in ("ln_1", "ln_2")]
        found += [Pair(f"{block}.{a}.weight", f"{ours}.{b}.weight", shape, True) for a, (b, shape) in linear.items()]
    found += [Pair("transformer.ln_f.weight", "ln_f.weight", (d,))]
    return [*found, Pair(HEAD, "head.weight", (config.vocab_size, d))]


def bias_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """The biases that their projections have and ours have not."""
    return {p.theirs.removesuffix("weight") + "bias": p.shape[1:] for p in pairs(config) if p.transposed}


def check_exportable(config: TransformerConfig, order: str, source: str) -> None:
    """Raise a UserError for what `ImageGPT` cannot hold."""
    rows, columns = config.shape
    for refused, why in (
        (not config.sos, "is a BERT model, which ImageGPT cannot be: it is causal"),
        (config.norm != "rms", f"has transformer.norm {config.norm}; ImageGPT has the gain-only norm"),
        (config.attention is not None, "has patterns of attention; ImageGPT's is dense"),
        (config.positions is not None, f"has transformer.positions {config.positions}; ImageGPT learns a vector each"),
        (bool(config.qk_norm), "has transformer.qk_norm; ImageGPT norms no queries and keys"),
        (config.slices is not None, "has embeddings of slices, which ImageGPT has not"),
        (rows != columns, f"has pictures of {rows}x{columns} pixels; those of ImageGPT's processor are square"),
        (order != "raster", f"has pixel order {order}; ImageGPT's processor knows raster order"),
    ):
        if refused:
            raise UserError(f"{source} {why}; use --format safetensors")


def to_huggingface(
    state: dict[str, Tensor], config: TransformerConfig, class_head: Tensor | None = None
) -> dict[str, Tensor]:
    """State dict of `ImageGPTForCausalImageModeling` from that of `PixelTransformer`.

    The entries of `state` are taken out one by one, so that the weights are in memory once.
    """
    found = {TOKENS: torch.cat([state.pop("wte.weight"), state.pop("sos")[None]])}
    for pair in pairs(config):
        tensor = state.pop(pair.ours)
        found[pair.theirs] = tensor.T.contiguous() if pair.transposed else tensor.contiguous()
    found |= {name: torch.zeros(shape) for name, shape in bias_shapes(config).items()}
    return found if class_head is None else found | {CLASS_HEAD: class_head.contiguous()}


def huggingface_config(config: TransformerConfig, num_classes: int | None = None) -> dict[str, Any]:
    """Content of config.json. Dropout is zero, as in the paper (section 3.4); their default for training is 0.1."""
    given = NEEDED | {
        "architectures": ["ImageGPTForCausalImageModeling"],
        "vocab_size": config.vocab_size + 1,
        "n_positions": config.n_positions,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": None,
        "torch_dtype": "float32",
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
    if num_classes is not None:
        given["id2label"] = {str(i): f"LABEL_{i}" for i in range(num_classes)}
        given["label2id"] = {f"LABEL_{i}": i for i in range(num_classes)}
    return given


def processor_config(colors: Tensor, resolution: int) -> dict[str, Any]:
    """Content of preprocessor_config.json, for a palette `(V, 3)` in [-1, 1] and images of side `resolution`."""
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "do_resize": True,
        "size": {"height": resolution, "width": resolution},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_color_quantize": True,
        "clusters": colors.float().tolist(),
    }
