"""Operations of a block with fewer passes over memory than PyTorch composes them of, for a CPU that runs one by one.

PyTorch has no kernel of the root-mean-square norm for CPUs: it takes six operations, and some fifteen backwards. The
layer norm is one kernel each way, and most of the backward one is what the other norm needs, too. Where blocks are
compiled, or on a GPU, PyTorch's own `F.rms_norm` is the quickest.

A product with a factor replaces a pass over its result: `x * sigmoid(s x)` is `silu(s x) / s`, one operation between
two products that have the factors.

Shapes: D width, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
