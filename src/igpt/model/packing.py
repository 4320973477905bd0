"""Products with weights that stay as they are, of which decoding computes thousands, on a CPU in float32.

PyTorch leaves products in float32 to MKL, which on CPUs that are not Intel's reaches less than half of oneDNN's speed
(docs/performance.md). oneDNN, which comes with PyTorch, wants the weights in an order of its own; to put them into it
once a drawing costs milliseconds. Elsewhere weights are left alone, and the products are PyTorch's usual ones.

Shapes: N rows, I inputs, O outputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.model.transformer import Block, PixelTransformer
from igpt.system import has_onednn

MOST_BYTES = 2 << 30  # of weights that are kept twice, as they are and packed: up to iGPT-M


class Packed(NamedTuple):
    """A weight in oneDNN's order. A type of its own, since in graphs of torch 2.11 `is_mkldnn` is False for it."""

    weight: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of the weight before it was packed."""
        return self.weight.dtype


Matrix = Tensor | Packed


class BlockWeights(NamedTuple):
    """The four matrices of a block."""

    qkv: Matrix
    attn: Matrix
    widen: Matrix
    narrow: Matrix


class Weights(NamedTuple):
    """All matrices that a position is multiplied with."""

    blocks: list[BlockWeights]
    head: Matrix


def weights_of(model: PixelTransformer, rows: int) -> Weights:
    """The matrices of a model: in autocast's type, cast once, where autocast is on; packed where that is quicker."""
    found = []
    for block in model.blocks:
        assert isinstance(block, Block)
        found += [block.attn.qkv.weight, block.attn.proj.weight, block.mlp.fc.weight, block.mlp.proj.weight]
    found, device = [*found, model.head.weight], model.wpe.device.type
    if torch.is_autocast_enabled(device):
        found = [weight.detach().to(torch.get_autocast_dtype(device)) for weight in found]
    *matrices, head = pack(found, rows)
    return Weights([BlockWeights(*matrices[first : first + 4]) for first in range(0, len(matrices), 4)], head)


def pack(weights: list[Tensor], rows: int) -> Sequence[Matrix]:
    """Weights `(O, I)` as `product` and `add_product_` take them, packed where that is quicker for so many rows."""
    if rows == 1 or sum(weight.nbytes for weight in weights) > MOST_BYTES or not all(map(can_be_packed, weights)):
        return weights
    return [Packed(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)) for weight in weights]


def can_be_packed(weight: Tensor) -> bool:
    """Float32 on a CPU, and PyTorch was built with oneDNN."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and has_onednn()


def product(x: Tensor, weight: Matrix, scale: float = 1.0) -> Tensor:
    """`scale * x @ weight.T`, `(N, O)`, in the weight's type; the weight may be packed."""
    x = x.to(weight.dtype)
    if isinstance(weight, Packed):
        y: Tensor = torch.ops.igpt.packed_product(x, weight.weight)
        return y if scale == 1.0 else y.mul_(scale)
    if scale == 1.0:
        return F.linear(x, weight)
    return torch.addmm(x.new_zeros(()), x, weight.t(), beta=0, alpha=scale)


def add_product_(h: Tensor, x: Tensor, weight: Matrix, scale: float = 1.0) -> Tensor:
    """`h += scale * x @ weight.T` in place, h being `(N, O)`; the weight may be packed."""
    if isinstance(weight, Packed):
        return h.add_(torch.ops.igpt.packed_product(x, weight.weight), alpha=scale)
    if weight.dtype != h.dtype:  # what is added up stays in float32
        return h.add_(F.linear(x.to(weight.dtype), weight), alpha=scale)
    return h.addmm_(x, weight.t(), alpha=scale)


def packed_product(x: Tensor, weight: Tensor) -> Tensor:
    """The product as an operation of its own, since `torch.compile` takes oneDNN's for constant weights alone."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


torch.library.define("igpt::packed_product", "(Tensor x, Tensor weight) -> Tensor")
torch.library.impl("igpt::packed_product", ("CPU", "MkldnnCPU"), packed_product)
torch.library.register_fake("igpt::packed_product", lambda x, weight: x.new_empty(len(x), len(weight)))
