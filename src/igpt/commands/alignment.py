"""Scoring imported weights on a few images, under the alignment of training and that of other ports."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from igpt.data import ImageDataModule, rng_of
from igpt.interop import Alignment, aligned_nll
from igpt.model import TransformerConfig
from igpt.modules import EVALUATE, Autoregressive, load
from igpt.system import Compute, UserError

SCORED = 64  # test images: enough to tell a wrong import from a right one
AT_ONCE = 8


def score(ckpt: str, data: ImageDataModule, alignment: Alignment, compute: Compute) -> str:
    """The lines about the first test images: nats per pixel as trained, and as another port counts."""
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


def check_score(alignment: Alignment, data: ImageDataModule | None, config: TransformerConfig | None = None) -> None:
    """Look at what is to be scored before anything is written; with `config`, once the weights are known.

    Raises:
        UserError: an alignment without images, or of a model without a start of sequence; the images are missing, or of
            another size than the model's.
    """
    if data is None:
        if alignment != "igpt":
            raise UserError(f"--alignment {alignment} is about the score on images; name some with --data")
        return
    if config is None:
        data.prepare_data()
        return
    if alignment != "igpt" and not config.sos:
        raise UserError(f"--alignment {alignment} is about autoregressive models; BERT has no start of sequence")
    if data.resolution**2 != config.n_positions:
        side = math.isqrt(config.n_positions)
        raise UserError(
            f"--data.resolution: the images are {data.resolution}x{data.resolution}, the model's {side}x{side}; set it"
        )
