"""One pixel after another, quickly: the causal forward with keys and values kept, as few operations as it takes.

At one position an image the arithmetic is small and every operation costs its call, so that this stands apart from
`PixelTransformer.forward`: it shares its weights and gives its numbers (to rounding), but writes into memory that is
laid out once, adds residuals inside the matrix products and has the activation's factor there as well; on a CPU its
weights are packed (`igpt.model.packing`), and on CUDA a step is one recorded graph (`igpt.model.recorded`).

Shapes: B images, S new positions, T positions in all, D width, H heads, L layers, V colours.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model.attention import attend, attend_to_seen
from igpt.model.packing import BlockWeights, add_product_, product, weights_of
from igpt.model.recorded import Recorded
from igpt.model.tokengraph import TokenStep, compiled_step
from igpt.model.transformer import ACTIVATION_SLOPE, Block, PixelTransformer

FIRST_COMPILED = 2  # positions seen: sizes of 0 and 1 would be compiled apart
MOST_IN_FLOAT32 = (
    32  # images: with more, the kernel with a mask loses more than a recording saves (measured at 16 and 64)
)
REACH = 128  # a recorded step reads the memory up to a multiple of this, and there is one graph for each


class Decoder:
    """A model with a memory of the positions it has seen, sos included, of `batch` images at once.

    Memory: keys and values, `2 L B T D` numbers in the type of the weights. Made while autocast is on, weights and
    memory have its type, and what the blocks add up stays in float32.
    """

    def __init__(self, model: PixelTransformer, batch: int, compile: bool = False) -> None:
        """`compile` makes one graph of the later calls (`igpt.model.tokengraph`), which takes half a minute once.

        On CUDA it changes nothing: the later calls are recorded there, but those of many images in float32.

        Raises ValueError for a model without sos.
        """
        if model.sos is None:
            raise ValueError("decoding needs a transformer with sos")
        self.model = model
        self.weights = weights_of(model, batch)
        self.seen = 0
        config = model.config
        shape = (config.n_layers, 2, batch, config.n_heads, config.n_positions, config.d_model // config.n_heads)
        self.memory = model.wpe.new_zeros(shape, dtype=self.weights.head.dtype)
        self.graph = compiled_step() if compile and self.memory.device.type != "cuda" else None
        self.recorded = Recorded() if can_be_recorded(self.memory) else None

    @torch.no_grad()
    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits `(B, V)` of the next pixel, after `tokens (B, S)` that were not handed in before.

        The first call puts sos in front and takes a prefix of any length, also 0, at once; later calls take S = 1.
        """
        with torch.autocast(tokens.device.type, enabled=False):  # the weights have its type already
            if self.graph is not None and self.seen >= FIRST_COMPILED:
                return self._compiled(self.graph, tokens[:, 0])
            if self.recorded is not None and self.seen > 0:
                return self._recorded(self.recorded, tokens[:, 0])
            return self._next_logits(tokens)

    def _next_logits(self, tokens: Tensor) -> Tensor:
        model = self.model
        content: Tensor = model.wte(tokens)
        if self.seen == 0:
            assert model.sos is not None
            content = torch.cat([model.sos.expand(len(tokens), 1, -1), content], dim=1)
        new = slice(self.seen, self.seen + content.shape[1])
        h = (content + model.wpe[new]).flatten(0, 1)  # (B S, D)
        h = self._blocks(h, self.memory[..., : new.stop, :], new)
        self.seen = new.stop
        return self._head(h.view(content.shape)[:, -1])

    def _compiled(self, step: TokenStep, tokens: Tensor) -> Tensor:
        """`next_logits` of one new position `(B,)` by one graph; the memory is written here, outside it."""
        past = self.memory[..., : self.seen, :]
        torch._dynamo.mark_dynamic(past, 4)
        position = torch.tensor(self.seen, device=tokens.device)
        logits, self.memory[..., self.seen : self.seen + 1, :] = step(self.model, self.weights, tokens, position, past)
        self.seen += 1
        return logits

    def _recorded(self, step: Recorded, tokens: Tensor) -> Tensor:
        """`next_logits` of one new position `(B,)` as CUDA recorded it."""
        position = torch.full((1,), self.seen, device=tokens.device)  # filled there: a copy would be waited for
        self.seen += 1
        reach = min(-(-self.seen // REACH) * REACH, self.model.config.n_positions)
        return step(self.step_at, reach, tokens, position)

    def step_at(self, reach: int, tokens: Tensor, position: Tensor) -> Tensor:
        """Logits `(B, V)` after one more token an image, at a place that no shape tells of: fit to be recorded.

        Args:
            reach: how much of the memory is read, at least `position + 1`; what lies behind `position` is hidden.
            tokens: int64 `(B,)`.
            position: int64 `(1,)`.
        """
        hidden = torch.arange(reach, device=position.device) > position
        mask = self.memory.new_zeros(reach).masked_fill_(hidden, float("-inf"))
        h = self.model.wte(tokens) + F.embedding(position, self.model.wpe)
        return self._head(self._blocks(h, self.memory[..., :reach, :], position, mask))

    def _blocks(self, h: Tensor, memory: Tensor, new: slice | Tensor, mask: Tensor | None = None) -> Tensor:
        """All blocks, on `h (B S, D)` in place.

        Args:
            memory: what is seen, `(L, 2, B, H, R, D/H)` with R up to T.
            new: which of the R the new positions are; their keys and values are written there.
            mask: added to the scores of the R positions.
        """
        for block, weights, seen in zip(self.model.blocks, self.weights.blocks, memory, strict=True):
            assert isinstance(block, Block)
            h = block_step(block, weights, h, seen, new, mask)
        return h

    def _head(self, last: Tensor) -> Tensor:
        return product(self.model.ln_f(last), self.weights.head)


def can_be_recorded(memory: Tensor) -> bool:
    """Whether steps with this memory `(L, 2, B, H, T, D/H)` are recorded: on CUDA, where it is quicker.

    Where operations must be deterministic, writing at an index takes another way, whose recording nobody has tried.
    """
    if memory.device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return memory.dtype != torch.float32 or memory.shape[2] <= MOST_IN_FLOAT32


def block_step(
    block: Block, weights: BlockWeights, h: Tensor, memory: Tensor, new: slice | Tensor, mask: Tensor | None
) -> Tensor:
    """`Block.forward` of `h (B S, D)`, in place; see `Decoder._blocks`."""
    _, batch, heads, _, width = memory.shape
    qkv = product(block.ln_1(h), weights.qkv).view(batch, -1, 3, heads, width).permute(2, 0, 3, 1, 4)
    memory[:, :, :, new] = qkv[1:]
    keys, values = memory
    if mask is None:
        mixed = attend(qkv[0], keys, values, causal=qkv.shape[3] > 1)
    else:
        mixed = attend_to_seen(qkv[0], keys, values, mask)
    h = add_product_(h, mixed.transpose(1, 2).reshape(h.shape), weights.attn)
    hidden = product(block.ln_2(h), weights.widen, ACTIVATION_SLOPE)
    return add_product_(h, F.silu(hidden, inplace=True), weights.narrow, 1 / ACTIVATION_SLOPE)
