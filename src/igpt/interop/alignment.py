"""The one-position shift: how users of other ports feed pixels, beside how the network was trained.

Trained (Chen et al. 2020, released code): the input is `[sos, x_0 .. x_{n-2}]`, pixel `x_i` stands at position `i + 1`,
and output i predicts `x_i`. Other ports are often fed the pixels alone: `x_i` then stands at position `i`, one too
early, nothing comes before `x_0`, and output i is scored against `x_{i+1}`.
"""

from typing import Literal

import torch
from torch import Tensor

from igpt.model import PixelTransformer, pixel_nll
from igpt.system import UserError

Alignment = Literal["igpt", "huggingface"]


@torch.inference_mode()
def aligned_nll(model: PixelTransformer, tokens: Tensor, alignment: Alignment = "igpt") -> Tensor:
    """-log p of pixels, float32 in nats, of tokens int64 `(B, T)` in raster order.

    Args:
        alignment: "igpt" is how the network was trained: `(B, T)`. "huggingface" is what
            `ImageGPTForCausalImageModeling(input_ids=tokens, labels=tokens)` scores: `(B, T - 1)`, without the first
            pixel. Its mean is the other port's loss, and no likelihood of an image.

    Raises:
        UserError: the transformer has no sos, so it is not autoregressive.
    """
    if model.sos is None:
        raise UserError(f"--alignment {alignment} is about autoregressive models; BERT has no start of sequence")
    if alignment == "igpt":
        return pixel_nll(model(tokens, causal=True), tokens)
    assert model.wpe is not None
    h = model.wte(tokens) + model.wpe[: tokens.shape[1]]
    for block in model.blocks:
        h = block(h, True)
    return pixel_nll(model.head(model.ln_f(h))[:, :-1], tokens[:, 1:])
