"""Multinomial logistic regression on fixed features by L-BFGS, all layers and strengths at once (paper, section 2.4).

For features x of layer l and strength s the objective is, in float, with W `(D, K)` and bias b `(K,)`,

    mean over images of -log softmax(W'x + b)[label]  +  s / 2 * |W|^2      (the bias is not penalised)

The problems share nothing but the loop, so every one of them keeps its own history, step and verdict, and finished
ones cost nothing more. The inverse Hessian is first guessed by that of `X' diag(c) X / n + s`, where c is the softmax'
mean curvature at the present point: features of trained networks are so correlated that without it L-BFGS needs many
times the steps, and predictions become so certain that the curvature at the beginning says little about the end. The
guess is made from some of the images and a few times only, since it costs as much as several steps.

Shapes: L layers, S strengths, P = L * S problems, N images, D features (+ 1 for the bias), K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

HISTORY = 10
MAX_STEPS = 300
ARMIJO = 1e-4
MAX_HALVINGS = 20
GUESS_IMAGES = 8  # for each feature, in the guess of the inverse Hessian
GUESS_AGAIN = (4, 12, 30, 80)  # steps after which the guess is made anew
WIDE = 1024  # features, beyond which a new guess costs more than the steps it saves
RIDGES = (1e-7, 1e-5, 1e-3, 1e-1)  # shares of a feature's curvature; the first that makes the guess positive is taken


@dataclass(frozen=True)
class Probes:
    """Fitted probes: `weight (L, S, D, K)`, `bias (L, S, K)`, the `objective (L, S)` reached, and steps taken."""

    weight: Tensor
    bias: Tensor
    objective: Tensor
    steps: int

    def logits(self, features: Tensor) -> Tensor:
        """Class logits `(L, S, N, K)` of features `(L, N, D)`."""
        return torch.einsum("lnd,lsdk->lsnk", features, self.weight) + self.bias[:, :, None]


def fit_probes(
    features: Tensor, labels: Tensor, strengths: list[float], num_classes: int, tolerance: float = 1e-3
) -> Probes:
    """Fit a probe for every layer and strength.

    Args:
        features: float `(L, N, D)`; the work is done in its dtype.
        labels: int64 `(N,)` in 0..num_classes-1.
        strengths: penalties s, all positive; scikit-learn's C is `1 / (s N)`.
        tolerance: a problem is done when its preconditioned gradient norm falls below it, about the square root of
            twice the distance to the optimum: 1e-3 ends some 1e-6 above it.
    """
    problem = _Problem(features, labels, strengths, num_classes)
    x = features.new_zeros(problem.count, num_classes * problem.width)
    active = torch.ones(problem.count, dtype=torch.bool, device=x.device)
    value, gradient = problem.evaluate(x, active)
    memory = _Memory(problem.count, x.shape[1], x)
    step = torch.ones_like(value)
    halvings = torch.zeros_like(value)
    direction, slope = _descent(memory, problem, gradient)
    steps = 0
    while steps < MAX_STEPS and bool(active.any()):
        steps += 1
        trial = x + step[:, None] * direction
        new_value, new_gradient = problem.evaluate(trial, active)
        rounding = 4 * torch.finfo(x.dtype).eps * value.abs()
        accept = active & (new_value <= value + ARMIJO * step * slope + rounding)
        memory.add(accept, trial - x, new_gradient - gradient)
        x = torch.where(accept[:, None], trial, x)
        gradient = torch.where(accept[:, None], new_gradient, gradient)
        value = torch.where(accept, new_value, value)
        halvings = torch.where(accept, 0, halvings + 1)
        step = torch.where(accept, 1.0, step / 2)
        if steps in GUESS_AGAIN:
            problem.guess(x, active)
        direction_new, slope_new = _descent(memory, problem, gradient)
        direction = torch.where(accept[:, None], direction_new, direction)
        slope = torch.where(accept, slope_new, slope)
        active &= (-slope).clamp(min=0).sqrt() > tolerance
        active &= halvings < MAX_HALVINGS
    parameters = x.view(problem.layers, len(strengths), num_classes, problem.width)
    weight, bias = parameters[..., :-1].transpose(2, 3).contiguous(), parameters[..., -1].contiguous()
    return Probes(weight, bias, value.view(problem.layers, -1), steps)


def probing_device(device: torch.device) -> torch.device:
    """Where to fit probes on features that lie on `device`: there, if it has the float64 that this needs."""
    return device if device.type == "cuda" else torch.device("cpu")


def _descent(memory: "_Memory", problem: "_Problem", gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Quasi-Newton direction `(P, n)` and its slope `(P,)`, which is negative but for a gradient of zero.

    Where rounding has spoilt what is remembered, plain preconditioned descent; where even that rises, the gradient.
    """
    direction = -memory.apply(gradient, problem.precondition)
    slope = (direction * gradient).sum(1)
    for other in (-problem.precondition(gradient), -gradient):
        bad = ~(slope < 0)
        direction = torch.where(bad[:, None], other, direction)
        slope = torch.where(bad, (other * gradient).sum(1), slope)
    return direction, slope


class _Problem:
    """Objective, gradient and preconditioner of all P problems; parameters are `(P, K * width)`, width = D + 1."""

    def __init__(self, features: Tensor, labels: Tensor, strengths: list[float], num_classes: int) -> None:
        self.layers, self.images, dimensions = features.shape
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.width = dimensions + 1
        self.strengths = features.new_tensor(strengths)
        self.count = self.layers * len(strengths)
        every = max(1, self.images // (GUESS_IMAGES * self.width))
        self.some = F.pad(features[:, ::every], (0, 1), value=1.0)  # (L, n, width)
        self.root = features.new_empty(self.layers, len(strengths), self.width, self.width)
        for layer in range(self.layers):  # at zero all shares are 1 / K, and so is the curvature
            gram = self.some[layer].T @ self.some[layer] / (self.some.shape[1] * num_classes)
            for index in range(len(strengths)):
                self._invert(gram, layer, index)

    def guess(self, x: Tensor, active: Tensor) -> None:
        """Take `(X' diag(c) X / n + s)^-1` for the inverse Hessian of each class, c being the curvature at `x`.

        The softmax' curvature `diag(p) - pp'` differs from class to class; c is the mean of its K - 1 eigenvalues that
        are not zero.
        """
        if self.width > WIDE:
            return
        weights = x.view(self.layers, -1, self.num_classes, self.width)
        for layer, index in active.view(self.layers, -1).nonzero().tolist():
            some = self.some[layer]
            shares = (weights[layer, index] @ some.T).softmax(0)
            curvature = (1 - shares.square().sum(0)) / (self.num_classes - 1)
            self._invert((some * curvature[:, None]).T @ some / len(some), layer, index)

    def _invert(self, hessian: Tensor, layer: int, index: int) -> None:
        """Keep R with R'R the inverse of one problem's Hessian `(width, width)`, to which its penalty is to be added.

        A root, since R'Rg descends also in float32, where the inverse of an ill-conditioned matrix need not.
        """
        hessian = hessian.double()
        scale = hessian.diagonal().clamp(min=1e-30)
        penalty = torch.full_like(scale, float(self.strengths[index]))
        penalty[-1] = 0.0  # the bias is not penalised
        for floor in RIDGES:  # features may be constant or equal to others, and the product is rounded
            factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag(penalty + floor * scale))
            if not failed:
                break
        else:
            factor = torch.diag((penalty + scale).sqrt())
        root = torch.linalg.solve_triangular(factor, torch.eye(self.width).to(factor), upper=False)
        self.root[layer, index] = root.to(self.root.dtype)

    def precondition(self, gradient: Tensor) -> Tensor:
        """The guessed inverse Hessian applied to `(P, K * width)`."""
        shaped = gradient.view(self.layers, -1, self.num_classes, self.width)
        return (shaped @ self.root.mT @ self.root).reshape(gradient.shape)

    def evaluate(self, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Objective `(P,)` and gradient `(P, K * width)` of the active problems; those of others have no meaning.

        One matrix product a layer serves all strengths. Images run along the last dimension, where softmax and both
        products are several times quicker than along the first.
        """
        parameters = x.view(self.layers, -1, self.num_classes, self.width)
        gradient = torch.zeros_like(parameters)
        values = x.new_zeros(self.layers, parameters.shape[1])
        for layer, which in enumerate(active.view(self.layers, -1)):
            if not which.any():
                continue
            weight, bias, strength = (
                parameters[layer, which, :, :-1],
                parameters[layer, which, :, -1],
                self.strengths[which],
            )
            target = self.labels.expand(len(weight), 1, -1)
            logits = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), self.features[layer].T)
            log_p = F.log_softmax(logits.view(len(weight), self.num_classes, -1), dim=1)  # (S, K, N)
            penalty = 0.5 * strength * weight.square().sum((1, 2))
            values[layer, which] = penalty - log_p.gather(1, target)[:, 0].mean(1)
            residual = log_p.exp_().scatter_add_(1, target, -log_p.new_ones(1).expand_as(target)) / self.images
            slopes = (residual.flatten(0, 1) @ self.features[layer]).view_as(weight) + strength[:, None, None] * weight
            gradient[layer, which] = torch.cat([slopes, residual.sum(2, keepdim=True)], dim=2)
        return values.flatten(), gradient.view_as(x)


class _Memory:
    """The last steps and gradient changes of every problem, newest last; empty places hold zeros and do nothing."""

    def __init__(self, problems: int, size: int, like: Tensor) -> None:
        self.steps = like.new_zeros(HISTORY, problems, size)
        self.changes = like.new_zeros(HISTORY, problems, size)
        self.inverse_curvature = like.new_zeros(HISTORY, problems)

    def add(self, accept: Tensor, step: Tensor, change: Tensor) -> None:
        """Remember a pair for the problems that accepted it and where the curvature is positive."""
        curvature = (step * change).sum(1)
        keep = accept & (curvature > 1e-12 * change.square().sum(1))
        self.steps = torch.where(keep[:, None], torch.cat([self.steps[1:], step[None]]), self.steps)
        self.changes = torch.where(keep[:, None], torch.cat([self.changes[1:], change[None]]), self.changes)
        rho = torch.cat([self.inverse_curvature[1:], (1 / curvature)[None]])
        self.inverse_curvature = torch.where(keep, rho, self.inverse_curvature)

    def apply(self, gradient: Tensor, precondition: "torch._C._FunctionBase | object") -> Tensor:
        """The two-loop recursion: the inverse Hessian's estimate applied to `(P, n)`."""
        q, alphas = gradient, []
        for i in reversed(range(HISTORY)):
            alpha = self.inverse_curvature[i] * (self.steps[i] * q).sum(1)
            q = q - alpha[:, None] * self.changes[i]
            alphas.append(alpha)
        r: Tensor = precondition(q)  # type: ignore[operator]
        for i, alpha in zip(range(HISTORY), reversed(alphas), strict=True):
            beta = self.inverse_curvature[i] * (self.changes[i] * r).sum(1)
            r = r + (alpha - beta)[:, None] * self.steps[i]
        return r
