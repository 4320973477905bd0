"""One decoding step as one graph: what `Decoder` runs per pixel when it is asked to compile.

Step by step, a pixel of a small network takes some two hundred operations that each cost their call, and PyTorch's
product of one row with a float32 matrix reads memory at a third of its speed on a CPU. Compiled into one graph, norms,
products, activations and attention are loops without calls between them. Two things make that work:

- The graph returns the new keys and values, and the caller writes them into the memory. Written inside the graph, they
  make the compiler copy the whole memory at every block: ten times slower than not compiling at all.
- The number of positions seen is a symbol, so that one graph, compiled once, serves all lengths from 2 on.

Shapes as in `igpt.model.cache`; T here is the number of positions seen so far.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model.packing import Matrix, Weights, product
from igpt.model.transformer import ACTIVATION_SLOPE, Block, PixelTransformer

TokenStep = Callable[[PixelTransformer, Weights, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def token_step(
    model: PixelTransformer, weights: Weights, tokens: Tensor, position: Tensor, past: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits `(B, V)` and the new keys and values `(L, 2, B, H, 1, D/H)`, after one more token an image.

    Args:
        weights: the model's, packed or not.
        tokens: int64 `(B,)`.
        position: of the tokens, int64 scalar (a tensor: a number would be compiled in).
        past: keys and values of the positions before it, `(L, 2, B, H, T, D/H)`.
    """
    h, new = model.wte(tokens) + F.embedding(position, model.wpe), []  # wpe[position] breaks the graph in torch 2.11
    for block, (qkv, attn, widen, narrow), memory in zip(model.blocks, weights.blocks, past, strict=True):
        assert isinstance(block, Block)
        q, k, v = project(block.ln_1(h), qkv).view(len(h), 3, memory.shape[2], 1, -1).unbind(1)
        mixed = attend_to_past_and_self(q, k, v, memory[0], memory[1])
        h = h + project(mixed.reshape(h.shape), attn)
        hidden = project(block.ln_2(h), widen)
        h = h + project(hidden * torch.sigmoid(ACTIVATION_SLOPE * hidden), narrow)
        new.append(torch.stack([k, v]))
    return project(model.ln_f(h), weights.head), torch.stack(new)


def project(x: Tensor, weight: Matrix) -> Tensor:
    """`x @ weight.T`; one row on a CPU as a sum that the compiler turns into a loop."""
    if len(x) == 1 and x.device.type == "cpu" and isinstance(weight, Tensor):
        return (x * weight).sum(-1)[None]
    return product(x, weight)


def attend_to_past_and_self(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one position `(B, H, 1, D/H)` to `T` past ones `(B, H, T, D/H)` and itself, without joining them."""
    q = q * q.shape[-1] ** -0.5
    scores, own = (keys * q).sum(-1, keepdim=True), (k * q).sum(-1, keepdim=True)  # (B, H, T, 1), (B, H, 1, 1)
    top = torch.maximum(scores.amax(2, keepdim=True), own)
    shares, share = (scores - top).exp(), (own - top).exp()
    return ((shares * values).sum(2, keepdim=True) + share * v) / (shares.sum(2, keepdim=True) + share)


def compiled_step() -> TokenStep:
    """`token_step` as one graph."""
    step: TokenStep = torch.compile(token_step, fullgraph=True)
    return step
