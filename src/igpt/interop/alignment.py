"""The one-position shift: how users of other ports feed pixels, beside how the network was trained.

Trained (Chen et al. 2020, released code): the input is `[sos, x_0 .. x_{n-2}]`, pixel `x_i` stands at position `i + 1`,
and output i predicts `x_i`. Other ports are often fed the pixels alone: `x_i` then stands at position `i`, one too
early, nothing comes before `x_0`, and output i is scored against `x_{i+1}`.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from igpt.data import ImageDataModule, rng_of
from igpt.model import PixelTransformer, pixel_nll
from igpt.modules import EVALUATE, Autoregressive, load
from igpt.system import Compute, UserError

Alignment = Literal["igpt", "huggingface"]
SCORED = 64  # test images: enough to tell a wrong import from a right one
AT_ONCE = 8


@torch.inference_mode()
def aligned_nll(model: PixelTransformer, tokens: Tensor, alignment: Alignment = "igpt") -> Tensor:
    """-log p of pixels, float32 in nats, of tokens int64 `(B, T)` in raster order.

    Args:
        alignment: "igpt" is how the network was trained: `(B, T)`. "huggingface" is what
            `ImageGPTForCausalImageModeling(input_ids=tokens, labels=tokens)` scores: pixels one position early, without
            sos, and the first pixel not predicted: `(B, T - 1)`. Its mean is the other port's loss, and is no
            likelihood of an image.

    Raises:
        UserError: the transformer has no sos, so it is not autoregressive.
    """
    if model.sos is None:
        raise UserError(f"--alignment {alignment} is about autoregressive models; BERT has no start of sequence")
    if alignment == "igpt":
        return pixel_nll(model(tokens, causal=True), tokens)
    h = model.wte(tokens) + model.wpe[: tokens.shape[1]]
    for block in model.blocks:
        h = block(h, True)
    return pixel_nll(model.head(model.ln_f(h))[:, :-1], tokens[:, 1:])


def score(ckpt: str, data: ImageDataModule, alignment: Alignment, compute: Compute) -> str:
    """What `igpt import` says about the first test images: nats per pixel as trained, and as another port counts."""
    module = load(ckpt, compute.device).module.core
    module.check_colors(data)
    test = data.images("test")
    images = torch.stack([test[index][0] for index in range(min(SCORED, data.size("test")))])
    parts = [module.encode(part.to(module.device)) for part in images.split(AT_ONCE)]
    known = f"of the first {len(images)} test images"
    with compute.autocast():
        if not isinstance(module, Autoregressive):
            loss = mean_of(parts, lambda tokens: module.loss(tokens, rng_of(EVALUATE)))
            return f"{loss:.4f} nats per masked pixel {known}"
        loss = mean_of(parts, lambda tokens: aligned_nll(module.transformer, tokens).mean())
        line = f"{loss:.4f} nats per pixel {known}"
        if alignment == "igpt":
            return line
        shifted = mean_of(parts, lambda tokens: aligned_nll(module.transformer, tokens, alignment).mean())
    return f"{line}\n{shifted:.4f} where pixels are fed without sos, one position early (--alignment {alignment})"


@torch.inference_mode()
def mean_of(parts: list[Tensor], loss: Callable[[Tensor], Tensor]) -> float:
    """Mean over images of a loss that is a mean over a part's images."""
    return sum(float(loss(part)) * len(part) for part in parts) / sum(map(len, parts))
