"""What every reader of other people's weights returns, and the comparison of tensors that they share."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from igpt.model import PixelTransformer, TransformerConfig
from igpt.system import UserError

Shape = tuple[int, ...]
NAMED = 3  # as many names of a long list are shown


@dataclass(frozen=True)
class Imported:
    """Weights under our names.

    Args:
        config: shape of the network; `sos` is `causal`.
        causal: AR, else BERT.
        state: state dict of `PixelTransformer(config)`, float32 on the CPU.
        class_head: weight of a class head `(classes, D)`, where the file has one.
        palette: colours float32 `(V, 3)` in [-1, 1], where the folder has them.
        source: the file or folder it came from, for messages.
        pixel_head: whether the file has a head for pixels; otherwise that of `state` is zeros.
        class_names: of the class head's classes, where they are known.
    """

    config: TransformerConfig
    causal: bool
    state: dict[str, Tensor]
    class_head: Tensor | None
    palette: Tensor | None
    source: str
    pixel_head: bool = True
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One tensor of theirs, and the one of ours that it becomes; `transposed` as a matrix."""

    theirs: str
    ours: str
    shape: Shape
    transposed: bool = False


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], source: str) -> None:
    """Compare the tensors of a file, under any naming, with what the network needs.

    Raises:
        UserError: names the first tensor that is missing, has another shape, or is not known.
    """
    for name, shape in expected.items():
        if name not in found:
            raise UserError(f"{source} lacks the tensor {name} {shape}; it is incomplete or holds another model")
        if found[name] != shape:
            raise UserError(f"{source}: the tensor {name} has shape {found[name]}, where {shape} is needed")
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise UserError(
            f"{source} holds the tensor {', '.join(unknown[:NAMED])}{more}, which this network does not have; "
            "it is another model, and nothing is dropped silently"
        )


def check_state(state: Mapping[str, Tensor], config: TransformerConfig, source: str) -> None:
    """Raise a UserError that names the first missing, wrongly shaped or unknown tensor of `state` (our names)."""
    with torch.device("meta"):  # no memory is used
        expected = PixelTransformer(config).state_dict()
    found, needed = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (state, expected))
    check_shapes(found, needed, source)
