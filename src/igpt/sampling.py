"""Drawing pixels one after another with a key/value cache, and completing images (paper, figure 1)."""

import torch
from torch import Tensor

from igpt.errors import UserError
from igpt.transformer import PixelTransformer


def filter_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits `(B, V)` divided by `temperature`, with all but the top ones at -inf.

    Args:
        top_k: keep the k most likely colours; 0 keeps all.
        top_p: keep the fewest colours whose probability reaches p; 1.0 keeps all. The likeliest is always kept.
    """
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        probability = ordered.softmax(-1)
        beyond = probability.cumsum(-1) - probability >= top_p  # mass before this colour already reaches p
        logits = ordered.masked_fill(beyond, float("-inf")).gather(1, order.argsort(1))
    return logits


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raise a UserError for settings that make no distribution."""
    if not temperature > 0:
        raise UserError(f"--temperature {temperature} must be above 0; use --top_k 1 for the likeliest colour")
    if top_k < 0:
        raise UserError(f"--top_k {top_k} must be 0 (all colours) or more")
    if not 0 < top_p <= 1:
        raise UserError(f"--top_p {top_p} must be above 0 and at most 1")


@torch.inference_mode()
def generate(
    model: PixelTransformer,
    prefix: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Continue each row of `prefix` to a whole image.

    Args:
        prefix: int64 `(B, P)` with `0 <= P <= T`, on the model's device; P = 0 draws whole images.
        seed: of a generator of its own, so that drawing pictures disturbs no other randomness.

    Returns:
        Tokens int64 `(B, T)`, beginning with the prefix.

    Raises:
        UserError: temperature, top_k or top_p make no distribution.
    """
    check_sampling(temperature, top_k, top_p)
    generator = torch.Generator(prefix.device).manual_seed(seed)
    n_positions = model.config.n_positions
    tokens = torch.empty(len(prefix), n_positions, dtype=torch.int64, device=prefix.device)
    tokens[:, : prefix.shape[1]] = prefix
    cache, fresh = model.new_cache(), prefix
    for position in range(prefix.shape[1], n_positions):
        logits = filter_logits(model.step(fresh, cache), temperature, top_k, top_p)
        fresh = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        tokens[:, position] = fresh[:, 0]
    return tokens
