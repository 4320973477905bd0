"""The contract of anything that has layers, and so can be probed: what a plug-in writes (docs/families.md)."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from igpt.checkpoints import spec_of
from igpt.data import Resolution
from igpt.system import UserError


class FeatureSource(nn.Module, ABC):
    """A frozen network, or any function of images, with named layers.

    A layer's features are one vector an image; layers may differ in width. The same image must get the same features
    whatever stands beside it in a batch. `tokens`, `log_likelihood` and `sample` are for those that have them.
    """

    layers: tuple[str, ...] = ()  # names, from the input to the output
    resolution: Resolution | None = None  # side, or rows and columns, of the images it takes; None takes any
    exact = False  # whether `log_likelihood` is the logarithm itself, and no lower bound of it

    def __init__(self) -> None:  # torch's own takes anything, and `spec` could not tell that it is nothing
        super().__init__()

    @abstractmethod
    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Features `(B, D_l)` of each of the layers, in the order asked for, of images uint8 `(B, 3, R, R)`."""

    def tokens(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Each position of each of the layers, `(B, T_l, D_l)`, for the attentive probe; see `MapSource`."""
        raise NotImplementedError

    def log_likelihood(self, images: Tensor) -> Tensor:
        """Natural logarithm of the probability of each image's bytes, `(B,)`, or a lower bound of it."""
        raise NotImplementedError

    def sample(self, num: int, seed: int = 0) -> Tensor:
        """New images uint8 `(num, 3, R, R)`; the same for the same seed."""
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data: every argument is kept as an attribute of the same name."""
        return spec_of(self)

    def offers(self, method: str) -> bool:
        """Whether it has an optional method: "tokens", "log_likelihood" or "sample"."""
        return getattr(type(self), method) is not getattr(FeatureSource, method)


def checked_features(
    source: FeatureSource, images: Tensor, layers: Sequence[str], method: str = "features"
) -> list[Tensor]:
    """Features of the layers, or their "tokens", once they are what the contract says.

    Raises:
        UserError: names the source and what is wrong with what it gave.
    """
    found: Any = getattr(source, method)(images, layers)
    if not isinstance(found, list | tuple) or len(found) != len(layers):
        count = f"{len(found)} of them" if isinstance(found, list | tuple) else type(found).__name__
        raise broken(source, f"{method}() gave {count}, not a list of {len(layers)} tensors, one a layer")
    sizes = "D" if method == "features" else "T, D"
    for name, part in zip(layers, found, strict=True):
        given = f"{str(part.dtype)[6:]} {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
        fits = isinstance(part, Tensor) and part.ndim == (2 if method == "features" else 3) and len(part) == len(images)
        if not fits or not part.is_floating_point():
            raise broken(source, f"{method}() of layer {name!r} are {given}, not floating ({len(images)}, {sizes})")
        if not torch.isfinite(part).all():
            raise broken(source, f"{method}() of layer {name!r} are infinite or no numbers")
    return list(found)


def checked_likelihood(source: FeatureSource, images: Tensor) -> Tensor:
    """Float64 `(B,)` on the CPU of a source that has a likelihood; a UserError unless it is a number an image."""
    nats: Any = source.log_likelihood(images)
    if not isinstance(nats, Tensor) or nats.shape != images.shape[:1] or not nats.is_floating_point():
        given = f"{str(nats.dtype)[6:]} {tuple(nats.shape)}" if isinstance(nats, Tensor) else type(nats).__name__
        raise broken(source, f"log_likelihood() gave {given}, not floating ({len(images)},)")
    return nats.cpu().double()  # MPS has no float64


def checked_layers(source: FeatureSource) -> tuple[str, ...]:
    """The layers' names; a UserError unless they are names, at least one, each once."""
    names: Any = source.layers
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise broken(source, f"its layers are {names!r:.60}, not a tuple of names")
    if len(set(names)) < len(names):
        raise broken(source, "two of its layers have one name")
    return tuple(names)


def check_spec(source: FeatureSource) -> None:
    """Raise a UserError unless a source describes itself as plain data."""
    try:
        json.dumps(source.spec())
    except (TypeError, ValueError) as error:
        raise broken(source, f"spec() is no plain data: {error}") from error


def broken(source: object, problem: str) -> UserError:
    """The line about a source that does not keep the contract."""
    return UserError(f"--source: {type(source).__name__} breaks the contract of a FeatureSource: {problem}")
