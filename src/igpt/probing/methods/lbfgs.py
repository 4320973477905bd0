"""Multinomial logistic regression on fixed features by L-BFGS, all layers and penalties at once (paper, section 2.4).

For features x of one layer and an L2 penalty the objective is, with W `(D, K)` and bias b `(K,)`,

    mean over images of cross_entropy(W'x + b, label)  +  l2 / 2 * |W|^2      (the bias is not penalised)

The problems run in one loop, but each has its own history, step size and stopping test; finished ones cost nothing.
The preconditioner is the inverse of `X' diag(c) X / n + l2`, where c is the mean curvature of the softmax at the
present point: features of trained networks are so correlated that without it L-BFGS needs many times the steps. It is
made from some of the images and a few times only, since it costs as much as several steps. Of very many features, such
as the pixels of 64x64 pictures, the principal directions of the images stand for it (`preconditioner.py`).

Shapes: L layers, S penalties, P = L * S problems, N images, D features (+ 1 for the bias), K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from igpt.probing.methods.preconditioner import DENSE, Dense, LowRank
from igpt.probing.protocol import Group, LayerResult, ProbeMethod, SplitFeatures, accuracy, on_features, standardise
from igpt.system import Progress, with_progress

L2 = [10.0**-e for e in (1, 2, 3, 4, 5, 6)]  # penalties to choose from
HISTORY = 10
MAX_STEPS = 300
ARMIJO = 1e-4
MAX_HALVINGS = 20
GUESS_AGAIN = (4, 12, 30, 80)  # steps after which the preconditioner is made anew
WIDE = 1024  # features, beyond which a new preconditioner costs more than the steps it saves


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
    features: Tensor,
    labels: Tensor,
    l2: list[float],
    num_classes: int,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Probes:
    """Fit a logistic regression for every layer and L2 penalty.

    Args:
        features: float `(L, N, D)`; the work is done in its dtype.
        labels: int64 `(N,)` in 0..num_classes-1.
        l2: penalties, all positive; scikit-learn's C is `1 / (l2 N)`.
        tolerance: on the preconditioned gradient norm, about the square root of twice the distance to the optimum:
            1e-3 ends some 1e-6 above it.
        progress: counts the problems that have ended.
    """
    problem = _Problem(features, labels, l2, num_classes)
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
            problem.update_preconditioner(x, active)
        direction_new, slope_new = _descent(memory, problem, gradient)
        direction = torch.where(accept[:, None], direction_new, direction)
        slope = torch.where(accept, slope_new, slope)
        active &= (-slope).clamp(min=0).sqrt() > tolerance
        active &= halvings < MAX_HALVINGS
        if progress:
            progress.add(problem.count - int(active.sum()) - progress.done)
    parameters = x.view(problem.layers, len(l2), num_classes, problem.width)
    weight, bias = parameters[..., :-1].transpose(2, 3).contiguous(), parameters[..., -1].contiguous()
    return Probes(weight, bias, value.view(problem.layers, -1), steps)


def probing_device(device: torch.device) -> torch.device:
    """The device to fit probes on for features on `device`: the same if it has float64, else the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")


def _descent(memory: "_Memory", problem: "_Problem", gradient: Tensor) -> tuple[Tensor, Tensor]:
    """L-BFGS direction `(P, n)` and its slope `(P,)`, negative unless the gradient is zero.

    Where rounding has spoilt the history: the preconditioned gradient, and where even that rises, the plain gradient.
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

    def __init__(self, features: Tensor, labels: Tensor, l2: list[float], num_classes: int) -> None:
        self.layers, self.images, dimensions = features.shape
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.width = dimensions + 1
        self.l2 = features.new_tensor(l2)
        self.count = self.layers * len(l2)
        self.inverse = (Dense if dimensions <= DENSE else LowRank)(features, self.l2, num_classes)

    def update_preconditioner(self, x: Tensor, active: Tensor) -> None:
        """Precondition every class by `(X' diag(c) X / n + l2)^-1`, c being the curvature at `x`."""
        if self.width > WIDE or not isinstance(self.inverse, Dense):
            return
        weights = x.view(self.layers, -1, self.num_classes, self.width)
        for layer, index in active.view(self.layers, -1).nonzero().tolist():
            self.inverse.update(weights[layer, index], layer, index)

    def precondition(self, gradient: Tensor) -> Tensor:
        """The preconditioner applied to `(P, K * width)`."""
        return self.inverse.apply(gradient.view(self.layers, -1, self.num_classes, self.width)).reshape(gradient.shape)

    def evaluate(self, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Objective `(P,)` and gradient `(P, K * width)` of the active problems; those of others have no meaning.

        One matrix product a layer serves all penalties. Images run along the last dimension, where softmax and both
        products are several times quicker than along the first.
        """
        parameters = x.view(self.layers, -1, self.num_classes, self.width)
        gradient = torch.zeros_like(parameters)
        values = x.new_zeros(self.layers, parameters.shape[1])
        for layer, which in enumerate(active.view(self.layers, -1)):
            if not which.any():
                continue
            weight, bias = parameters[layer, which, :, :-1], parameters[layer, which, :, -1]
            l2 = self.l2[which]
            target = self.labels.expand(len(weight), 1, -1)
            logits = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), self.features[layer].T)
            log_p = F.log_softmax(logits.view(len(weight), self.num_classes, -1), dim=1)  # (S, K, N)
            penalty = 0.5 * l2 * weight.square().sum((1, 2))
            values[layer, which] = penalty - log_p.gather(1, target)[:, 0].mean(1)
            residual = log_p.exp_().scatter_add_(1, target, -log_p.new_ones(1).expand_as(target)) / self.images
            slopes = (residual.flatten(0, 1) @ self.features[layer]).view_as(weight) + l2[:, None, None] * weight
            gradient[layer, which] = torch.cat([slopes, residual.sum(2, keepdim=True)], dim=2)
        return values.flatten(), gradient.view_as(x)


class _Memory:
    """L-BFGS history of every problem: steps and gradient changes, newest last; empty places are zero."""

    def __init__(self, problems: int, size: int, like: Tensor) -> None:
        self.steps = like.new_zeros(HISTORY, problems, size)
        self.changes = like.new_zeros(HISTORY, problems, size)
        self.inverse_curvature = like.new_zeros(HISTORY, problems)

    def add(self, accept: Tensor, step: Tensor, change: Tensor) -> None:
        """Append a pair for the problems that accepted it and where the curvature is positive."""
        curvature = (step * change).sum(1)
        keep = accept & (curvature > 1e-12 * change.square().sum(1))
        self.steps = torch.where(keep[:, None], torch.cat([self.steps[1:], step[None]]), self.steps)
        self.changes = torch.where(keep[:, None], torch.cat([self.changes[1:], change[None]]), self.changes)
        rho = torch.cat([self.inverse_curvature[1:], (1 / curvature)[None]])
        self.inverse_curvature = torch.where(keep, rho, self.inverse_curvature)

    def apply(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """The two-loop recursion: the estimated inverse Hessian applied to `(P, n)`."""
        q, alphas = gradient, []
        for i in reversed(range(HISTORY)):
            alpha = self.inverse_curvature[i] * (self.steps[i] * q).sum(1)
            q = q - alpha[:, None] * self.changes[i]
            alphas.append(alpha)
        r = precondition(q)
        for i, alpha in zip(range(HISTORY), reversed(alphas), strict=True):
            beta = self.inverse_curvature[i] * (self.changes[i] * r).sum(1)
            r = r + (alpha - beta)[:, None] * self.steps[i]
        return r


def lbfgs_layers(splits: SplitFeatures, groups: list[Group], num_classes: int) -> list[LayerResult]:
    """Logistic regression by L-BFGS on every layer.

    The penalty of `L2` with the best validation accuracy is chosen (the larger one on a tie), and the probe fitted
    again with it on train + val. `groups` names the L layers of `splits`.
    """
    (train, train_labels), (val, val_labels), (test, test_labels) = (splits[name] for name in ("train", "val", "test"))
    with Progress(len(groups) * len(L2), "layers and penalties: lbfgs", quiet=True) as progress:
        fitted = fit_probes(train, train_labels, L2, num_classes, progress=progress)
    val_accuracy = accuracy(fitted.logits(val), val_labels)  # (L, S)
    best = val_accuracy.argmax(1)
    both_labels = torch.cat([train_labels, val_labels])
    results = []
    again = with_progress(zip(groups, best.tolist(), strict=True), len(groups), "layers: lbfgs, refitted", quiet=True)
    for index, (group, chosen) in enumerate(again):
        layer = slice(index, index + 1)
        both = torch.cat([train[layer], val[layer]], dim=1)
        probe = fit_probes(both, both_labels, [L2[chosen]], num_classes)
        tested = accuracy(probe.logits(test[layer]), test_labels)
        right = accuracy(probe.logits(both), both_labels)
        results.append(LayerResult(group, L2[chosen], float(val_accuracy[index, chosen]), float(tested), float(right)))
    return results


def probe_subset(
    splits: SplitFeatures, indices: list[int], layers: list[int], num_classes: int, standardised: bool
) -> LayerResult:
    """Logistic regression on few training images: layer and penalty are chosen on validation (paper, section 4.5).

    The validation split is not folded into training, where it would outnumber the few labels. Ties go to the lower
    layer and the larger penalty. `indices` are the training images with labels, by which features are standardised if
    asked for; `layers` names the L layers of `splits`.
    """
    few, labels = splits["train"][0][:, indices], splits["train"][1][indices]
    val, test = splits["val"][0], splits["test"][0]
    if standardised:
        few, val, test = standardise(few, [few, val, test])
    probes = fit_probes(few, labels, L2, num_classes)
    val_accuracy = accuracy(probes.logits(val), splits["val"][1])  # (L, S)
    test_accuracy = accuracy(probes.logits(test), splits["test"][1])
    layer, l2 = divmod(int(val_accuracy.argmax()), len(L2))
    return LayerResult((layers[layer],), L2[l2], float(val_accuracy[layer, l2]), float(test_accuracy[layer, l2]))


LBFGS = ProbeMethod(
    "lbfgs",
    "strength",
    "logistic regression by L-BFGS; penalty of best validation accuracy among 1e-1 ... 1e-6, refitted on train + val",
    **on_features(lbfgs_layers),
    number="8.0e",
)
