"""Norms and matrix products in fewer passes over memory than PyTorch composes them of.

- Root-mean-square norm: PyTorch has no kernel of it for CPUs and composes it of six operations, and some fifteen
  backwards. The layer norm is one kernel each way, and most of its backward is what the other norm needs, too. In
  compiled blocks and on a GPU, PyTorch's own `F.rms_norm` is the quickest.
- Products with a factor: `x * sigmoid(s x)` is `silu(s x) / s`, one operation between two products that have the
  factors.
- Packed weights, for float32 decoding on a CPU: PyTorch leaves products in float32 to MKL, which on CPUs that are not
  Intel's reaches less than half of oneDNN's speed (docs/performance.md). oneDNN, which comes with PyTorch, wants the
  weights in an order of its own, and to put them into it costs milliseconds.

Shapes: N rows, D width, I inputs, O outputs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from igpt.system import has_onednn

MOST_BYTES = 2 << 30  # of weights that are kept twice, as they are and packed: up to iGPT-M


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x * rsqrt(mean(x^2) + eps) * weight` over the last dimension of `x (..., D)`."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.dtype != weight.dtype:
        return F.rms_norm(x, weight.shape, weight, eps)
    y: Tensor = RMSNormFunction.apply(x, weight, eps)
    return y


class RMSNormFunction(torch.autograd.Function):
    """Keeps `x` and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Three passes: the rows' norms, and two products."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        rstd = torch.addcmul(norm.new_full((), eps), norm, norm, value=1 / x.shape[-1]).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return (x * rstd).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The layer norm's backward with means of zero, plus what centring took away: a constant a row."""
        x, weight, rstd = ctx.saved_tensors
        grad = grad.contiguous()
        wanted = [*ctx.needs_input_grad[:2], False]
        args = (grad, x, weight.shape, torch.zeros_like(rstd), rstd, weight, None, wanted)
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(*args)
        if grad_x is not None:
            grad_x += (grad @ weight).unsqueeze(-1).mul_(rstd).div_(x.shape[-1])
        return grad_x, grad_weight, None


class Linear(torch.nn.Linear):
    """`scale * x @ weight.T` without a bias; the factor goes to the weight, which is smaller than the result."""

    def __init__(self, in_features: int, out_features: int, scale: float = 1.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return F.linear(x, self.weight * self.scale)


class Packed(NamedTuple):
    """A weight in oneDNN's order. A type of its own, since in graphs of torch 2.11 `is_mkldnn` is False for it."""

    weight: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of the weight before it was packed."""
        return self.weight.dtype


Matrix = Tensor | Packed


def pack(weights: list[Tensor], rows: int) -> Sequence[Matrix]:
    """Weights `(O, I)` as `product` and `add_product_` take them, packed where that is quicker for so many rows."""
    if rows == 1 or sum(weight.nbytes for weight in weights) > MOST_BYTES or not all(map(can_be_packed, weights)):
        return weights
    return [Packed(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)) for weight in weights]


def can_be_packed(weight: Tensor) -> bool:
    """Float32 on a CPU, and PyTorch was built with oneDNN."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and has_onednn()


def product(x: Tensor, weight: Matrix, scale: float = 1.0) -> Tensor:
    """`scale * x @ weight.T`, `(N, I)` to `(N, O)`; the weight may be packed."""
    compiling = torch.compiler.is_compiling()
    if compiling and len(x) == 1 and x.device.type == "cpu" and isinstance(weight, Tensor):
        y = (x * weight).sum(-1)[None]  # becomes a loop, which reads memory three times as fast as PyTorch's product
    else:
        x = x.to(weight.dtype)
        if isinstance(weight, Packed):
            y = torch.ops.igpt.packed_product(x, weight.weight)
        elif scale == 1.0 or compiling:  # a compiler puts the factor into the operation that follows
            y = F.linear(x, weight)
        else:
            return torch.addmm(x.new_zeros(()), x, weight.t(), beta=0, alpha=scale)
    return y if scale == 1.0 else y.mul_(scale)


def add_product_(h: Tensor, x: Tensor, weight: Matrix, scale: float = 1.0) -> Tensor:
    """`h += scale * x @ weight.T` in place, h being `(N, O)`; the weight may be packed."""
    if isinstance(weight, Packed) or weight.dtype != h.dtype or torch.compiler.is_compiling():
        return h.add_(product(x, weight), alpha=scale)  # what is added up stays in float32
    return h.addmm_(x, weight.t(), alpha=scale)


def packed_product(x: Tensor, weight: Tensor) -> Tensor:
    """The product as an operation of its own, since `torch.compile` takes oneDNN's for constant weights alone."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


torch.library.define("igpt::packed_product", "(Tensor x, Tensor weight) -> Tensor")
torch.library.impl("igpt::packed_product", ("CPU", "MkldnnCPU"), packed_product)
torch.library.register_fake("igpt::packed_product", lambda x, weight: x.new_empty(len(x), len(weight)))
