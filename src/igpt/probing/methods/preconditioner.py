"""Guesses of the inverse Hessian for the L-BFGS probe: dense where features are few, low-rank where they are many.

With equal probabilities of all classes the Hessian of one class is `X' X / (n K) + l2`, the bias being a constant
feature that is not penalised. Dense keeps a root of its inverse, `(D + 1)^2` numbers for each penalty. LowRank keeps
the principal directions of at most MOST images, one set for all penalties, found from their products with one another.

Shapes: L layers, S penalties, N images, D features, width = D + 1, K classes, r directions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

GUESS_IMAGES = 8  # for each feature, in the dense inverse
RIDGES = (1e-7, 1e-5, 1e-3, 1e-1)  # shares of a feature's curvature; the first that makes it positive is taken
DENSE = 4096  # features, beyond which the dense inverse costs more than all steps
MOST = 2048  # images whose directions the low-rank inverse knows
FLAT = 1e-7  # share of the mean or largest curvature that counts as none


class Dense:
    """A root of the inverse Hessian of every layer and penalty.

    Args:
        features: `(L, N, D)`.
        l2: penalties `(S,)`.
        num_classes: K.
    """

    def __init__(self, features: Tensor, l2: Tensor, num_classes: int) -> None:
        layers, images, dimensions = features.shape
        self.l2, self.num_classes, self.width = l2, num_classes, dimensions + 1
        every = max(1, images // (GUESS_IMAGES * self.width))
        self.some = F.pad(features[:, ::every], (0, 1), value=1.0)  # (L, n, width)
        self.root = features.new_empty(layers, len(l2), self.width, self.width)
        for layer in range(layers):  # with zero weights all probabilities are 1 / K, and so is the curvature
            gram = self.some[layer].T @ self.some[layer] / (self.some.shape[1] * num_classes)
            for index in range(len(l2)):
                self._invert(gram, layer, index)

    def update(self, weights: Tensor, layer: int, index: int) -> None:
        """Make one problem's anew at its weights `(K, width)`.

        The softmax' Hessian `diag(p) - pp'` differs from class to class; c is the mean of its K - 1 eigenvalues that
        are not zero.
        """
        some = self.some[layer]
        shares = (weights @ some.T).softmax(0)
        curvature = (1 - shares.square().sum(0)) / (self.num_classes - 1)
        self._invert((some * curvature[:, None]).T @ some / len(some), layer, index)

    def _invert(self, hessian: Tensor, layer: int, index: int) -> None:
        """Keep R with R'R the inverse of one problem's Hessian `(width, width)` plus its penalty.

        R'Rg is a descent direction also in float32, where the inverse of an ill-conditioned matrix need not give one.
        """
        hessian = hessian.double()
        scale = hessian.diagonal().clamp(min=1e-30)
        penalty = torch.full_like(scale, float(self.l2[index]))
        penalty[-1] = 0.0  # the bias is not penalised
        for floor in RIDGES:  # features may be constant or equal to others, and the product is rounded
            factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag(penalty + floor * scale))
            if not failed:
                break
        else:
            factor = torch.diag((penalty + scale).sqrt())
        root = torch.linalg.solve_triangular(factor, torch.eye(self.width).to(factor), upper=False)
        self.root[layer, index] = root.to(self.root.dtype)

    def apply(self, gradient: Tensor) -> Tensor:
        """The inverse Hessian applied to `(L, S, K, width)`."""
        return gradient @ self.root.mT @ self.root


class LowRank:
    """Principal directions of a layer's images, with the curvature along each and the mean of all others.

    Of more than MOST images some, evenly spaced, give the directions, and others as many the curvatures: those that
    gave them have too much of it. Arguments as those of Dense.
    """

    def __init__(self, features: Tensor, l2: Tensor, num_classes: int) -> None:
        self.num_classes = num_classes
        self.mean = features.mean(1)  # (L, D)
        self.directions: list[Tensor] = []  # (r, D), orthonormal rows
        self.along: list[Tensor] = []  # (S, r), roots of the inverse curvature
        self.across: list[Tensor] = []  # (S, 1), for what lies in no direction
        for layer, mean in zip(features, self.mean, strict=True):
            self._add(layer, mean, l2.double())

    def _add(self, features: Tensor, mean: Tensor, l2: Tensor) -> None:
        every = -(-len(features) // MOST)
        some = (features[::every] - mean).double()
        gram = some @ some.T / (len(some) * self.num_classes)
        curvature, vectors = torch.linalg.eigh(gram)
        kept = curvature > FLAT * curvature[-1]
        curvature = curvature[kept]
        directions = (vectors[:, kept] / (len(some) * self.num_classes * curvature).sqrt()).T @ some
        rest = curvature.new_zeros(())
        if every > 1:
            others = (features[every // 2 :: every] - mean).double()
            found = (others @ directions.T).square().sum(0)
            left = (others.square().sum() - found.sum()).clamp(min=0) / max(1, some.shape[1] - len(directions))
            curvature, rest = found / (len(others) * self.num_classes), left / (len(others) * self.num_classes)
        floor = l2 + FLAT * gram.trace() / some.shape[1]
        self.directions.append(directions.to(features.dtype))
        self.along.append((curvature + floor[:, None]).rsqrt().to(features.dtype))
        self.across.append((rest + floor[:, None]).rsqrt().to(features.dtype))

    def apply(self, gradient: Tensor) -> Tensor:
        """The inverse Hessian applied to `(L, S, K, width)`: with centred features the bias stands alone."""
        slopes, bias = gradient[..., :-1], gradient[..., -1:]
        slopes = slopes - bias * self.mean[:, None, None]
        for _ in range(2):  # a root twice, for the reason that Dense has
            slopes = torch.stack([self._root(one, layer) for layer, one in enumerate(slopes)])
        return torch.cat(
            [slopes, self.num_classes * bias - (slopes * self.mean[:, None, None]).sum(-1, keepdim=True)], dim=-1
        )

    def _root(self, slopes: Tensor, layer: int) -> Tensor:
        """The root of the inverse applied to one layer's `(S, K, D)`."""
        directions, along, across = self.directions[layer], self.along[layer], self.across[layer][:, None]
        return across * slopes + ((slopes @ directions.T) * (along[:, None] - across)) @ directions
