"""Autoregressive decoding with a KV cache: the prefix by `Block.forward`, every later token by `token_step`.

Shapes: B images, S new positions, T positions in all, D width, H heads, W = D / H, L layers, V colours.
"""

import torch
from torch import Tensor

from igpt.model.attention import LayerCache, is_dense
from igpt.model.token_step import CUDAGraphs, compiled_step, eager_step, masked_step, pattern_step, weights_of
from igpt.model.transformer import Block, PixelTransformer

FIRST_COMPILED = 2  # positions seen: sizes of 0 and 1 would be compiled apart
MOST_IN_FLOAT32 = 32  # images: above, the kernel with a mask loses more than a recording saves (measured at 16 and 64)
REACH = 128  # a recorded step reads the cache up to a multiple of this, and there is one graph for each


class Decoder:
    """A causal model with the KV cache of the positions it has seen, sos included, of `batch` images at once.

    The cache is `2 L B T D` numbers in the type of the weights. Made and used while autocast is on, weights and cache
    have its type, and what the blocks add up stays in float32.
    """

    def __init__(
        self, model: PixelTransformer, batch: int, compile: bool = False, conditions: Tensor | None = None
    ) -> None:
        """`compile` runs the later calls as one graph (`compiled_step`), which takes half a minute once.

        On CUDA the later calls are recorded, compiled or not; those of many images in float32 are neither.
        `conditions` are what the model is told of each image (`PixelTransformer.start`).

        Raises ValueError for a model without sos.
        """
        if model.sos is None:
            raise ValueError("decoding needs a transformer with sos")
        self.model, self.conditions = model, conditions
        self.weights = weights_of(model, batch)
        self.seen = 0
        config = model.config
        width, like = config.d_model // config.n_heads, model.wte.weight.new_empty(0, dtype=self.weights.head.dtype)
        self.patterns = pattern_caches(model, like, batch)
        shape = (config.n_layers, 2, batch, config.n_heads, 0 if self.patterns else config.n_positions, width)
        self.kv_cache = like.new_zeros(shape)
        self.recorded = CUDAGraphs() if can_be_recorded(self.kv_cache) else None
        can_be = not self.patterns and (self.recorded is not None or like.device.type != "cuda")
        self.compiled = compiled_step() if compile and can_be else None

    @torch.no_grad()
    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits `(B, V)` of the next pixel, after `tokens (B, S)` that were not handed in before.

        The first call puts sos in front and takes a prefix of any length, also 0, at once; later calls take S = 1.
        """
        if self.seen == 0:
            return self._prefix(tokens)
        with torch.autocast(tokens.device.type, enabled=False):  # the weights have its type already
            return self._step(tokens[:, 0])

    def _prefix(self, tokens: Tensor) -> Tensor:
        model = self.model
        h = torch.cat([model.start(len(tokens), self.conditions), model.wte(tokens)], dim=1)  # (B, S + 1, D)
        self.seen = h.shape[1]
        bias, positions = model.shared_bias(), self.weights.positions
        h = h if positions is None else h + positions[: self.seen]
        for block, layer in zip(model.blocks, self.patterns or self.kv_cache[..., : self.seen, :], strict=True):
            assert isinstance(block, Block)
            h = block.forward(h, True, layer, bias)  # not a compiled block: it would be compiled anew for this
        logits: Tensor = model.head(model.ln_f(h[:, -1]))
        return logits

    def _step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token an image, int64 `(B,)`, in the way that is quickest here."""
        position = torch.full((1,), self.seen, device=tokens.device)  # filled there: a copy would be waited for
        self.seen += 1
        if self.patterns:
            whole = self.model.config.n_positions
            step = self.recorded or (lambda function, _, *tensors: function(_, *tensors))
            return step(self.pattern_step, whole, tokens, position)
        if self.recorded is not None:
            reach = min(-(-self.seen // REACH) * REACH, self.model.config.n_positions)
            step = self.masked_step if self.compiled is None else self.compiled_masked_step
            return self.recorded(step, reach, tokens, position)
        if self.compiled is None or self.seen <= FIRST_COMPILED:
            return eager_step(self.model, self.weights, tokens, position, self.kv_cache[..., : self.seen, :])
        past = self.kv_cache[..., : self.seen - 1, :]
        torch._dynamo.mark_dynamic(past, 4)
        logits, new = self.compiled(self.model, self.weights, tokens, position, past)
        self.kv_cache[..., self.seen - 1 : self.seen, :] = new
        return logits

    def masked_step(self, reach: int, tokens: Tensor, position: Tensor) -> Tensor:
        """The step that is recorded, once for each `reach`: how much of the cache is read, beyond the position."""
        return masked_step(self.model, self.weights, self.kv_cache[..., :reach, :], tokens, position)

    def compiled_masked_step(self, reach: int, tokens: Tensor, position: Tensor) -> Tensor:
        """`masked_step` as one graph, which is recorded; the cache is written outside of the graph."""
        assert self.compiled is not None
        past = self.kv_cache[..., : min(reach, self.model.config.n_positions - 1), :]  # all of it: another graph
        torch._dynamo.mark_dynamic(past, 4)
        logits, new = self.compiled(self.model, self.weights, tokens, position, past, True)
        self.kv_cache.index_copy_(4, position, new)
        return logits

    def pattern_step(self, _: int, tokens: Tensor, position: Tensor) -> Tensor:
        """The step of a network with patterns or a bias, which is recorded, too."""
        return pattern_step(self.model, self.weights, self.patterns, tokens, position)


def pattern_caches(model: PixelTransformer, like: Tensor, batch: int) -> list[LayerCache]:
    """The caches of the layers, in the type and on the device of `like`; none where all of them are dense."""
    bias, config = model.shared_bias(), model.config
    attentions = [block.attn for block in model.blocks if isinstance(block, Block)]
    if all(is_dense(one.heads) for one in attentions) and config.positions not in ("bias", "shared_bias"):
        return []
    return [one.own_cache(bias, like, batch) for one in attentions]


def most_at_once(model: PixelTransformer, passes: int, free: float) -> int:
    """Images whose caches, of so many passes each, take at most half of `free` bytes; at least one.

    Patterns keep less; the other half is for the weights' second copy and what a step computes.
    """
    config = model.config
    size = 2 if torch.is_autocast_enabled(model.wte.weight.device.type) else 4
    image = passes * 2 * config.n_layers * config.n_positions * config.d_model * size
    return max(1, int(min(free / 2 / image, 2**31)))


def can_be_recorded(cache: Tensor) -> bool:
    """Whether steps with this cache `(L, 2, B, H, T, W)` are recorded: on CUDA, where it is quicker.

    Where operations must be deterministic, writing at an index takes another way, whose recording nobody has tried.
    """
    if cache.device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return cache.dtype != torch.float32 or cache.shape[2] <= MOST_IN_FLOAT32
