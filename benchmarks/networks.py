"""The networks that are compared: sizes, igpt's module, and the same weights as Hugging Face's `ImageGPT`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from igpt.interop import huggingface_config, to_huggingface
from igpt.model import TransformerConfig
from igpt.modules import Autoregressive

SMALL = TransformerConfig(8, 256, 8)
SIZES = {  # config, images a batch
    "digits": (TransformerConfig(4, 64, 4, n_positions=64, vocab_size=17), 64),
    "small": (SMALL, 4),
    "S cut to 4 layers": (TransformerConfig(4, 512, 8), 4),
}


def tokens_of(config: TransformerConfig, batch: int, device: str = "cpu", seed: int = 0) -> Tensor:
    """Random tokens int64 `(B, T)`, the same on every side."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, config.n_positions), generator=generator).to(device)


def igpt_module(config: TransformerConfig, device: str = "cpu", **how: Any) -> Autoregressive:
    """A module with weights that depend on nothing but the config; the head is drawn, since zeros compare nothing."""
    torch.manual_seed(0)
    module = Autoregressive(config, **how)
    torch.nn.init.normal_(module.transformer.head.weight, std=0.02)
    return module.to(device)


def image_gpt(config: TransformerConfig, device: str = "cpu") -> Any:
    """The same weights as `igpt_module`, in `transformers`."""
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    theirs = ImageGPTForCausalImageModeling(ImageGPTConfig(**huggingface_config(config)))
    state = to_huggingface(dict(igpt_module(config).transformer.state_dict()), config)
    missing, unknown = theirs.load_state_dict(state, strict=False)
    assert not [*missing, *unknown], (missing, unknown)
    return theirs.to(device)


def x_transformer(config: TransformerConfig, device: str = "cpu") -> Any:
    """The same dimensions in `x_transformers`, with its flash attention; its blocks are not quite the same."""
    from x_transformers import Decoder, TransformerWrapper

    width, heads = config.d_model, config.n_heads
    layers = Decoder(dim=width, depth=config.n_layers, heads=heads, attn_dim_head=width // heads, attn_flash=True)
    return TransformerWrapper(num_tokens=config.vocab_size + 1, max_seq_len=config.n_positions, attn_layers=layers).to(
        device
    )


def with_start(tokens: Tensor, config: TransformerConfig) -> Tensor:
    """`[sos, x_0 .. x_{T-2}]`, the sos being one more token, as the peers have it."""
    start = torch.full_like(tokens[:, :1], config.vocab_size)
    return torch.cat([start, tokens[:, :-1]], dim=1)


def array(values: Tensor) -> np.ndarray:
    """For a comparison."""
    return values.detach().float().cpu().numpy()
