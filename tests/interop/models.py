"""Models of `transformers` with random weights, as the independent side of these tests."""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may ask a network

import numpy as np
import torch
from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

SHAPES = {  # layers, width, heads, positions, colours: no two sizes alike, so that swapped ones show
    "one head": {"n_layer": 2, "n_embd": 10, "n_head": 1, "n_positions": 16, "vocab_size": 7 + 1},
    "deep": {"n_layer": 5, "n_embd": 24, "n_head": 4, "n_positions": 64, "vocab_size": 17 + 1},
    "as released, but small": {"n_layer": 3, "n_embd": 48, "n_head": 8, "n_positions": 1024, "vocab_size": 512 + 1},
}


def theirs(shape: str = "deep", seed: int = 0, **options: object) -> ImageGPTForCausalImageModeling:
    """Every weight random and large enough to matter, gains around 1, biases zero."""
    torch.manual_seed(seed)
    model = ImageGPTForCausalImageModeling(ImageGPTConfig(**SHAPES[shape], **options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 1.0 if name.endswith(("wpe.weight", "wte.weight")) else 0.3  # positions and pixels have a say
            parameter.normal_(std=0.0 if name.endswith("bias") else spread)
            if "ln_" in name:
                parameter.add_(1.0)
    return model


def colors(k: int, seed: int = 0) -> np.ndarray:
    """Random colours float32 `(k, 3)` in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (k, 3)).astype(np.float32)


def save(model: ImageGPTForCausalImageModeling, folder: Path, **options: object) -> Path:
    """The folder that `transformers` writes, with a palette as the released ones have it."""
    model.save_pretrained(folder, **options)
    clusters = colors(model.config.vocab_size - 1).tolist()
    (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters}))
    return folder


def begun(tokens: torch.Tensor, sos: int) -> torch.Tensor:
    """`[sos, x_0 .. x_{n-2}]`, the input that the networks were trained with."""
    return torch.cat([torch.full_like(tokens[:, :1], sos), tokens[:, :-1]], 1)
