"""Training of VQ tokens: an autoencoder with FSQ, or with a codebook of moving averages, its dead codes revived."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.palette.vq import VQShape, VQTokens, decoder_of, encoder_of
from igpt.system import library, with_progress

FLAT = 0.5  # share of the steps at the full rate, before it falls to zero


@dataclass(frozen=True)
class VQRecipe:
    """How VQ tokens are trained.

    Args:
        steps: of the optimizer.
        learning_rate: of Adam.
        seed: of weights and codes.
    """

    steps: int = 1500
    learning_rate: float = 0.002
    seed: int = 0


def quantizer_of(shape: VQShape) -> Any:
    """Codebook or FSQ of vector-quantize-pytorch; a UserError names the extra where that is not installed."""
    quantizers = library("vector_quantize_pytorch", "families", "--kind vq")
    if shape.levels:
        return quantizers.FSQ(list(shape.levels))
    return quantizers.VectorQuantize(
        dim=shape.latent, codebook_size=shape.codes, decay=0.95, kmeans_init=True, kmeans_iters=10,
        threshold_ema_dead_code=1, commitment_weight=0.25,
    )  # fmt: skip


def fit_vq(batches: Callable[[int], Tensor], shape: VQShape, recipe: VQRecipe = VQRecipe()) -> VQTokens:
    """Train an autoencoder with a codebook, by squared error.

    Args:
        batches: images uint8 `(B, 3, R, R)` of a step.
        shape: its sizes.
        recipe: how long, and from which seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        encoder, decoder, quantizer = encoder_of(shape), decoder_of(shape), quantizer_of(shape)
        quantizer.train()
        weights = [*encoder.parameters(), *decoder.parameters()]
        optimizer = torch.optim.Adam(weights, recipe.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 50, (1 - step / recipe.steps) / (1 - FLAT))
        )
        for step in with_progress(range(recipe.steps), recipe.steps, "steps: VQ tokens", quiet=True):
            images = batches(step).float() / 127.5 - 1
            vectors = encoder(images)
            rows = vectors.flatten(2).transpose(1, 2)
            codes, _, *commitment = quantizer(rows)  # FSQ has none: its codes do not move
            drawn = decoder(codes.transpose(1, 2).unflatten(2, vectors.shape[2:]))
            loss = F.mse_loss(drawn, images) + sum(one.sum() for one in commitment)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
    tokens = VQTokens(shape)
    tokens.encoder.load_state_dict(encoder.state_dict())
    tokens.decoder.load_state_dict(decoder.state_dict())
    tokens.codebook.copy_((quantizer.implicit_codebook if shape.levels else quantizer.codebook).detach())
    return tokens


class VQQuality:
    """How well tokens give images back, and how codes are used, added batch by batch."""

    def __init__(self, tokens: VQTokens) -> None:
        self.tokens, self.squared, self.values = tokens, 0.0, 0
        self.counts = torch.zeros(tokens.k, dtype=torch.int64)

    def add(self, images: Tensor) -> None:
        """Count images uint8 `(B, 3, R, R)`."""
        found = self.tokens.encode(images)
        shape = [side // self.tokens.stride for side in images.shape[2:]]
        self.squared += float((self.tokens.decode(found, shape).double() - images.double()).square().sum())
        self.values += images.numel()
        self.counts += found.flatten().bincount(minlength=self.tokens.k)

    def figures(self) -> dict[str, float | int | None]:
        """`mse` of a channel in 0..255 units, `psnr` in dB (None where nothing was lost), `perplexity`, `unused`."""
        mse, shares = self.squared / self.values, self.counts[self.counts > 0].double() / self.counts.sum()
        return {
            "mse": mse,
            "psnr": 10 * math.log10(255**2 / mse) if mse > 0 else None,
            "perplexity": math.exp(-float((shares * shares.log()).sum())),
            "unused_codes": int((self.counts == 0).sum()),
        }
