"""BERT pre-training: predict masked pixels from all others (paper, section 2.1)."""

import torch
from torch import Tensor

from igpt.data import rng_of
from igpt.model import (
    Order,
    SamplingOptions,
    TransformerConfig,
    covering_masks,
    draw_mask,
    infill,
    pixel_nll,
)
from igpt.modules.generative import GenerativeModule
from igpt.system import UserError
from igpt.training import Optimizer, Schedule


class BERT(GenerativeModule):
    """No sos, no attention mask; the embedding of masked positions is zero. For the arguments see `GenerativeModule`.

    Args:
        mask_share: probability of each position to be masked; 0.15 in the paper.
        mask_seed: of the masks in training; those of evaluation are always the same.
    """

    causal = False

    def __init__(
        self,
        transformer: TransformerConfig,
        palette: str | None = None,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
        compile: bool = False,
        recompute: bool = False,
        order: Order = "raster",
        start_from: str | None = None,
        mask_share: float = 0.15,
        mask_seed: int = 0,
        optimizer: Optimizer = "adam",
        schedule: Schedule = "cosine",
    ) -> None:
        if not 0 < mask_share < 1:
            raise UserError(f"model.init_args.mask_share {mask_share} must lie between 0 and 1; the paper uses 0.15")
        recipe = (learning_rate, betas, weight_decay, warmup_steps)
        super().__init__(transformer, palette, *recipe, compile, recompute, order, start_from, optimizer, schedule)
        self.mask_share = mask_share
        self.mask_seed = mask_seed

    def draw_mask(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """M, bool `(B, T)`: drawn on the CPU, so that it is the same whatever the device."""
        masked = draw_mask(tokens.shape[0], tokens.shape[1], self.mask_share, rng)
        return masked.pin_memory().to(tokens.device, non_blocking=True) if tokens.is_cuda else masked.to(tokens.device)

    def surprise(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """-log p(x_i | all pixels outside its mask), float32 `(B, T)` in nats, in the order of the sequence.

        Disjoint masks of about `mask_share`, the same for all images, hide every pixel once. The sum over an image is
        a pseudo-likelihood: it is no log-probability of the image, and not to be compared with that of AR.
        """
        nats = torch.zeros(tokens.shape, device=tokens.device)
        for mask in covering_masks(tokens.shape[1], self.mask_share, rng_of(seed)).to(tokens.device):
            masked = mask.expand_as(tokens)
            hidden = pixel_nll(self.transformer(tokens, causal=False, masked=masked), tokens)
            nats = torch.where(masked, hidden, nats)
        return nats

    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """In a few passes, given the known pixels on every side (`igpt.model.infill`)."""
        return infill(self.transformer, tokens, unknown, options)
