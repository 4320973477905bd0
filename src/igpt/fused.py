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
    """`scale * x @ weight.T` without a bias; the factor costs nothing, being part of the product."""

    def __init__(self, in_features: int, out_features: int, scale: float = 1.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return F.linear(x, self.weight) if self.scale == 1 else scaled_linear(x, self.weight, self.scale)


def scaled_linear(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """`scale * x @ weight.T`, `(..., O)`, in autocast's type where that is on."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
    y: Tensor = ScaledLinearFunction.apply(x, weight, scale)
    return y


class ScaledLinearFunction(torch.autograd.Function):
    """`addmm` has a factor of its own, but its gradient multiplies the results, each in a pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: float) -> Tensor:
        """One product."""
        ctx.save_for_backward(x, weight)
        ctx.scale = scale
        return scaled_product(x.flatten(0, -2), weight.t(), scale).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Two products."""
        x, weight = ctx.saved_tensors
        x, grad, shape = x.flatten(0, -2), grad.flatten(0, -2), x.shape
        grad_x = scaled_product(grad, weight, ctx.scale).view(shape) if ctx.needs_input_grad[0] else None
        grad_weight = scaled_product(grad.t(), x, ctx.scale) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None


def scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """`scale * a @ b`."""
    return torch.addmm(a.new_zeros(()), a, b, beta=0, alpha=scale)
