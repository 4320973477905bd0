"""Our weights as `transformers` reads them: tensors, config.json and preprocessor_config.json."""

from typing import Any

import torch
from torch import Tensor

from igpt.interop.huggingface import NEEDED
from igpt.interop.names import CLASS_HEAD, TOKENS, bias_shapes, pairs
from igpt.model import TransformerConfig
from igpt.system import UserError

BICUBIC = 3  # Pillow's number of the filter that igpt resizes with


def check_exportable(config: TransformerConfig, order: str, source: str) -> None:
    """Raise a UserError for what `ImageGPT` cannot hold."""
    if not config.sos:
        raise UserError(f"{source} is a BERT model, which ImageGPT cannot be: it is causal; use --format safetensors")
    if config.norm != "rms":
        raise UserError(
            f"{source} has transformer.norm {config.norm}; ImageGPT has the gain-only norm; use --format safetensors"
        )
    if order != "raster":
        raise UserError(
            f"{source} has pixel order {order}; ImageGPT's processor knows raster order; use --format safetensors"
        )


def to_huggingface(
    state: dict[str, Tensor], config: TransformerConfig, class_head: Tensor | None = None
) -> dict[str, Tensor]:
    """Tensors under their names, of a state dict of `PixelTransformer`; its entries are taken out one by one.

    Taking them out keeps one copy of the weights in memory, not two.
    """
    found = {TOKENS: torch.cat([state.pop("wte.weight"), state.pop("sos")[None]])}
    for pair in pairs(config.n_layers):
        tensor = state.pop(pair.ours)
        found[pair.theirs] = tensor.T.contiguous() if pair.transposed else tensor.contiguous()
    found |= {name: torch.zeros(shape) for name, shape in bias_shapes(config).items()}
    return found if class_head is None else found | {CLASS_HEAD: class_head.contiguous()}


def huggingface_config(config: TransformerConfig, num_classes: int | None = None) -> dict[str, Any]:
    """Content of config.json. Dropout is zero, as in the paper (section 3.4); their default for training is 0.1."""
    given: dict[str, Any] = {
        **NEEDED,
        "architectures": ["ImageGPTForCausalImageModeling"],
        "vocab_size": config.vocab_size + 1,
        "n_positions": config.n_positions,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": None,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "torch_dtype": "float32",
    }
    if num_classes is not None:
        given["id2label"] = {str(i): f"LABEL_{i}" for i in range(num_classes)}
        given["label2id"] = {f"LABEL_{i}": i for i in range(num_classes)}
    return given


def processor_config(colors: Tensor, resolution: int) -> dict[str, Any]:
    """Content of preprocessor_config.json.

    Args:
        colors: palette `(k, 3)` in [-1, 1]; float32 survives being written as decimals.
        resolution: side of the images.
    """
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
