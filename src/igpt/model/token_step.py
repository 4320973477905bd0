"""The decoding step: one token an image through all blocks, in as few operations as it takes.

At one position an image the arithmetic is small and every operation costs its call. So this stands beside
`Block.forward`, with the same weights and, to rounding, the same numbers: weights are cast and packed once, residuals
are added inside the matrix products, and so is the activation's factor. One function, `token_step`, runs in three ways,
which differ in how they read and write the KV cache:

- `eager_step`: one operation after another; the cache is written in place, and read up to the new position.
- `compiled_step`: one graph for all lengths from 2 on, since the number of positions is a symbol. It returns the new
  keys and values, and the caller writes them: written inside, they make the compiler copy the whole cache at every
  block, ten times slower than not compiling at all.
- `masked_step`, which `CUDAGraphs` records and replays by one call. It reads the cache up to a fixed `reach` and hides
  by a mask what lies behind the position, a tensor; so one recording serves all positions below its reach. What is
  compiled there, on CUDA, hides what it does not see in the same way.

Shapes: B images, T positions in the cache, D width, H heads, W = D / H, L layers, V colours.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model.attention import LayerCache, attend, attend_to_past_and_self, attend_to_seen
from igpt.model.kernels import Matrix, add_product_, pack, product
from igpt.model.transformer import ACTIVATION_SLOPE, Block, PixelTransformer

WARM_UP = 2  # calls before a recording, in which libraries make ready what may not be made while it runs


class BlockWeights(NamedTuple):
    """The four matrices of a block."""

    qkv: Matrix
    attn: Matrix
    fc: Matrix
    proj: Matrix


class Weights(NamedTuple):
    """All matrices that a position is multiplied with, and what is added to its token."""

    blocks: list[BlockWeights]
    head: Matrix
    positions: Tensor | None  # (T, D)


def weights_of(model: PixelTransformer, rows: int) -> Weights:
    """The matrices of a model: in autocast's type, cast once, where autocast is on; packed where that is quicker."""
    found = []
    for block in model.blocks:
        assert isinstance(block, Block)
        found += [block.attn.qkv.weight, block.attn.proj.weight, block.mlp.fc.weight, block.mlp.proj.weight]
    found, device = [*found, model.head.weight], model.wte.weight.device.type
    if torch.is_autocast_enabled(device):
        found = [weight.detach().to(torch.get_autocast_dtype(device)) for weight in found]
    *matrices, head = pack(found, rows)
    blocks = [BlockWeights(*matrices[first : first + 4]) for first in range(0, len(matrices), 4)]
    return Weights(blocks, head, None if (positions := model.positions()) is None else positions.detach())


def token_step(
    model: PixelTransformer,
    weights: Weights,
    tokens: Tensor,
    position: Tensor,
    cache: Iterable[Any],
    attend: Callable[[Tensor, Tensor, Any], Tensor],
) -> Tensor:
    """Logits `(B, V)` after one more token an image.

    Args:
        weights: the model's, packed or not.
        tokens: int64 `(B,)`.
        position: of the tokens, int64 `(1,)`: a tensor, since a number would be compiled or recorded as a constant.
        cache: keys and values of each block, `(L, 2, B, H, T, W)`, or what else `attend` takes.
        attend: attention of a block, from the query `(B, H, 1, W)`, the new key and value `(2, B, H, 1, W)` and the
            block's part of the cache; it also puts the new ones where they belong.
    """
    h, n_heads = model.wte(tokens), model.config.n_heads  # (B, D)
    heads = n_heads, 1, h.shape[1] // n_heads
    if weights.positions is not None:
        h = h + F.embedding(position, weights.positions)  # an index breaks the graph in torch 2.11
    for block, (qkv, attn, fc, proj), layer in zip(model.blocks, weights.blocks, cache, strict=True):
        assert isinstance(block, Block)
        # (B, 3 D) -> (B, 3, H, 1, W) -> (3, B, H, 1, W)
        new = product(block.ln_1(h), qkv).view(len(h), -1, *heads).transpose(0, 1)
        if block.attn.q_norm is not None:
            new = torch.stack([*block.attn.normed(new[0], new[1]), new[2]])
        if block.attn.rope is not None:
            new = torch.cat([block.attn.rope(new[:2], position), new[2:]])
        mixed = attend(new[0], new[1:], layer)
        h = add_product_(h, mixed.reshape(h.shape), attn)  # (B, H, 1, W) -> (B, D)
        hidden = product(block.ln_2(h), fc, ACTIVATION_SLOPE)
        h = add_product_(h, F.silu(hidden, inplace=True), proj, 1 / ACTIVATION_SLOPE)
    return product(model.ln_f(h), weights.head)


def eager_step(model: PixelTransformer, weights: Weights, tokens: Tensor, position: Tensor, cache: Tensor) -> Tensor:
    """`token_step` with the cache up to and including the new position, the last, which is written."""

    def write_and_attend(q: Tensor, new: Tensor, layer: Tensor) -> Tensor:
        layer[:, :, :, -1:] = new
        return attend(q, layer[0], layer[1], causal=False)

    return token_step(model, weights, tokens, position, cache, write_and_attend)


def masked_step(model: PixelTransformer, weights: Weights, cache: Tensor, tokens: Tensor, position: Tensor) -> Tensor:
    """`token_step` with the cache up to any place behind the position, which is written; what lies behind is hidden."""
    hidden = torch.arange(cache.shape[4], device=position.device) > position
    mask = cache.new_zeros(cache.shape[4]).masked_fill_(hidden, float("-inf"))

    def write_and_attend(q: Tensor, new: Tensor, layer: Tensor) -> Tensor:
        layer[:, :, :, position] = new
        return attend_to_seen(q, layer[0], layer[1], mask)

    return token_step(model, weights, tokens, position, cache, write_and_attend)


def pattern_step(
    model: PixelTransformer,
    weights: Weights,
    caches: list[LayerCache],
    tokens: Tensor,
    position: Tensor,
) -> Tensor:
    """`token_step` with caches that hold what patterns still see, and know what the position reads."""
    return token_step(model, weights, tokens, position, caches, lambda q, new, one: one.attend(q, new, position))


def functional_step(
    model: PixelTransformer, weights: Weights, tokens: Tensor, position: Tensor, past: Tensor, masked: bool = False
) -> tuple[Tensor, Tensor]:
    """`token_step` with the cache before the position; also returns the new keys and values `(L, 2, B, H, 1, W)`.

    Where `masked`, the cache may be longer, and what lies in it from the position on is hidden.
    """
    found = []
    mask = (torch.arange(past.shape[4], device=position.device) >= position)[:, None] if masked else None  # (T, 1)

    def keep_and_attend(q: Tensor, new: Tensor, layer: Tensor) -> Tensor:
        found.append(new)
        return attend_to_past_and_self(q, new[0], new[1], layer[0], layer[1], mask)

    logits = token_step(model, weights, tokens, position, past, keep_and_attend)
    return logits, torch.stack(found)


CompiledStep = Callable[..., tuple[Tensor, Tensor]]


def compiled_step() -> CompiledStep:
    """`functional_step` as one graph."""
    step: CompiledStep = torch.compile(functional_step, fullgraph=True)
    return step


class Recording(NamedTuple):
    """A CUDA graph, the tensors that it reads, and the one that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class CUDAGraphs:
    """Calls of `function(variant, *tensors)`, recorded once for each variant; the tensors always have the same shapes.

    Recording calls the function a few times more, so that what it writes must not depend on how often it is called.
    It may not wait for the device, and what else it reads must stay where it is.
    """

    def __init__(self) -> None:  # takes no function: one that is bound to who owns this would be a circle of references
        self.recordings: dict[int, Recording] = {}
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[..., Tensor], variant: int, *tensors: Tensor) -> Tensor:
        """What the function returns, as a tensor of its own."""
        if variant not in self.recordings:
            self.recordings[variant] = self._record(function, variant, tensors)
        graph, inputs, output = self.recordings[variant]
        for held, given in zip(inputs, tensors, strict=True):
            held.copy_(given)
        graph.replay()
        return output.clone()

    def _record(self, function: Callable[..., Tensor], variant: int, tensors: tuple[Tensor, ...]) -> Recording:
        inputs = tuple(tensor.clone() for tensor in tensors)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(variant, *inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads, such as the one that pins the loaders' batches, may go on meanwhile
        with uncollected(), torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            output = function(variant, *inputs)
        return Recording(graph, inputs, output)


@contextmanager
def uncollected() -> Iterator[None]:
    """Python collects no garbage meanwhile: to free another graph while one is recorded would spoil the recording."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
