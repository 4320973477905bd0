"""One pixel after another, quickly: the causal forward with keys and values kept, as few operations as it takes.

At one position an image the arithmetic is small and every operation costs its call, so that this stands apart from
`PixelTransformer.forward`: it shares its weights and gives its numbers (to rounding), but writes into memory that is
laid out once, adds residuals inside the matrix products and has the activation's factor there as well; on a CPU its
weights are packed (`igpt.packing`).

Shapes: B images, S new positions, T positions in all, D width, H heads, L layers, V colours.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.attention import attend
from igpt.packing import BlockWeights, add_product_, product, weights_of
from igpt.tokengraph import TokenStep, compiled_step
from igpt.transformer import ACTIVATION_SLOPE, Block, PixelTransformer

FIRST_COMPILED = 2  # positions seen: sizes of 0 and 1 would be compiled apart


class Decoder:
    """A model with a memory of the positions it has seen, sos included, of `batch` images at once.

    Memory: keys and values, `2 L B T D` numbers in the type of the weights. Made while autocast is on, weights and
    memory have its type, and what the blocks add up stays in float32.
    """

    def __init__(self, model: PixelTransformer, batch: int, compile: bool = False) -> None:
        """`compile` makes one graph of the later calls (`igpt.tokengraph`), which takes half a minute once.

        Raises ValueError for a model without sos.
        """
        if model.sos is None:
            raise ValueError("decoding needs a transformer with sos")
        self.model = model
        self.weights = weights_of(model, batch)
        self.seen = 0
        config = model.config
        shape = (config.n_layers, 2, batch, config.n_heads, config.n_positions, config.d_model // config.n_heads)
        self.memory = model.wpe.new_empty(shape, dtype=self.weights.head.dtype)
        self.graph = compiled_step() if compile else None

    @torch.no_grad()
    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits `(B, V)` of the next pixel, after `tokens (B, S)` that were not handed in before.

        The first call puts sos in front and takes a prefix of any length, also 0, at once; later calls take S = 1.
        """
        with torch.autocast(tokens.device.type, enabled=False):  # the weights have its type already
            return self._next_logits(tokens)

    def _next_logits(self, tokens: Tensor) -> Tensor:
        if self.graph is not None and self.seen >= FIRST_COMPILED:
            return self._as_graph(self.graph, tokens[:, 0])
        model = self.model
        content: Tensor = model.wte(tokens)
        if self.seen == 0:
            assert model.sos is not None
            content = torch.cat([model.sos.expand(len(tokens), 1, -1), content], dim=1)
        positions = model.wpe[self.seen : self.seen + content.shape[1]]
        h = (content + positions).flatten(0, 1)  # (B S, D)
        for block, weights, memory in zip(model.blocks, self.weights.blocks, self.memory, strict=True):
            assert isinstance(block, Block)
            h = self._block(block, weights, h, memory)
        self.seen += content.shape[1]
        last = h.view(content.shape)[:, -1]
        return product(model.ln_f(last), self.weights.head)

    def _as_graph(self, step: TokenStep, tokens: Tensor) -> Tensor:
        """`next_logits` of one new position `(B,)` by one graph; the memory is written here, outside it."""
        past = self.memory[..., : self.seen, :]
        torch._dynamo.mark_dynamic(past, 4)
        position = torch.tensor(self.seen, device=tokens.device)
        logits, self.memory[..., self.seen : self.seen + 1, :] = step(self.model, self.weights, tokens, position, past)
        self.seen += 1
        return logits

    def _block(self, block: Block, weights: BlockWeights, h: Tensor, memory: Tensor) -> Tensor:
        """`Block.forward` of `h (B S, D)`, in place; keys and values go to `memory (2, B, H, T, D/H)`."""
        _, batch, heads, _, width = memory.shape
        qkv = product(block.ln_1(h), weights.qkv).view(batch, -1, 3, heads, width).permute(2, 0, 3, 1, 4)
        end = self.seen + qkv.shape[3]
        memory[:, :, :, self.seen : end] = qkv[1:]
        keys, values = memory[:, :, :, :end]
        mixed = attend(qkv[0], keys, values, causal=qkv.shape[3] > 1)
        h = add_product_(h, mixed.transpose(1, 2).reshape(h.shape), weights.attn)
        hidden = product(block.ln_2(h), weights.widen, ACTIVATION_SLOPE)
        return add_product_(h, F.silu(hidden, inplace=True), weights.narrow, 1 / ACTIVATION_SLOPE)
