"""From a checkpoint to a module ready for use; only known classes are built."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, build, check_finite, checksum_of, read_checkpoint
from igpt.data import ImageDataModule
from igpt.model import TransformerConfig
from igpt.modules.base import PixelModule, RecipeModule, step_of
from igpt.system import UserError, allowed_imports, last_line, load_plugins, packages

FAMILIES = "igpt.families."  # where networks are that are no transformers
SHOWN = 20  # classes of a list in a message


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that has been read.

    Args:
        module: with its weights and palette, in evaluation mode.
        path: of the file.
        step: optimizer steps at which it was saved.
        data_spec: the data it was trained on, as plain data; None if it knew none.
        class_names: of these data, in the order of their labels; empty if it knew none.
    """

    module: PixelModule
    path: Path
    step: int
    data_spec: dict[str, Any] | None
    class_names: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file."""
        return checksum_of(self.path)

    @property
    def background(self) -> str:
        """What transparent pictures are laid on, as in the data that it was trained on."""
        return str((self.data_spec or {}).get("init_args", {}).get("background", "white"))

    def labels_of(self, classes: Sequence[str | int]) -> tuple[int, ...]:
        """The numbers of classes that are given by their names or numbers, for a model that is told classes.

        Raises:
            UserError: the model is told none, or there is no such class.
        """
        count = self.module.core.classes
        if count is None:
            raise UserError(
                f"--class: {self.path} is a model that is told no classes; train one with model.init_args.classes"
            )
        numbers = {str(label): label for label in range(count)}
        numbers |= dict(zip(self.class_names, range(count), strict=False))  # a name that is a number is a name
        for name in map(str, classes):
            if name not in numbers:
                known = ", ".join(list(map(str, self.class_names or range(count)))[:SHOWN])
                more = ", ..." if count > SHOWN else ""
                raise UserError(f"--class {name}: there is no such class; choose from {known}{more}")
        return tuple(numbers[name] for name in map(str, classes))

    def data(self) -> ImageDataModule:
        """The data module that the checkpoint was trained on.

        Raises:
            UserError: the checkpoint knows none, or its class is not installed.
        """
        if self.data_spec is None:
            raise UserError("--ckpt: this checkpoint does not say what it was trained on; name the data with --data")
        data: ImageDataModule = build(self.data_spec, ImageDataModule, packages() | allowed_imports())
        return data


def load(path: str | Path, device: str | torch.device = "cpu") -> Loaded:
    """Build the module that a checkpoint holds, with its weights and palette, in evaluation mode.

    Raises:
        UserError: see `read_module`; or it is of another family, which predicts no pixels.
    """
    module, content = read_module(path)
    if not isinstance(module, PixelModule):
        raise UserError(
            f"checkpoint {path} is a {type(module).__name__}, which predicts no pixels one by one; of other families "
            "'igpt probe' takes a checkpoint, and Python `igpt.families.open_source`"
        )
    return as_loaded(module.to(device), path, content)


def as_loaded(module: PixelModule, path: str | Path, content: dict[str, Any]) -> Loaded:
    """What `read_module` gave, of igpt's own networks."""
    header = content[CHECKPOINT_KEY]
    return Loaded(module, Path(path), step_of(content), header.get("data"), class_names_of(header))


def read_module(path: str | Path) -> tuple[RecipeModule, dict[str, Any]]:
    """The module of a checkpoint of any family, with its weights, in evaluation mode; and the checkpoint's content.

    Raises:
        UserError: see `read_checkpoint`; or the weights do not fit the class and arguments that the file names.
    """
    content = read_checkpoint(path)
    return built(content, path), content


def built(content: dict[str, Any], path: str | Path) -> RecipeModule:
    """The module that a checkpoint's content describes, with its weights, in evaluation mode.

    Args:
        path: where the content is from, for complaints.

    Raises:
        UserError: the weights do not fit the class and arguments that the content names.
    """
    load_plugins()
    model, state = content[CHECKPOINT_KEY]["model"], content["state_dict"]
    check_room(model, state, path)
    try:
        module: RecipeModule = build(model, RecipeModule, {"igpt"} | allowed_imports())
        module.load_state_dict(state)
        if isinstance(module, PixelModule):
            if module.core.has_palette:
                module.core.palette.check("its palette")
            check_order(module.core.pixel_order)
    except UserError as error:
        raise UserError(f"checkpoint {path}: {error}") from error
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason = last_line(error)
        raise UserError(f"checkpoint {path}: the weights do not fit the model it names ({reason})") from error
    check_finite(state.items(), f"checkpoint {path}")
    return module.eval()


def class_names_of(header: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes that a checkpoint's header has; those of an older one from its folder of classes."""
    data = header.get("data")
    init_args = data.get("init_args") if isinstance(data, dict) else None
    names = header.get("class_names") or (init_args.get("classes") if isinstance(init_args, dict) else None)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def check_room(model: dict[str, Any], state: Any, source: str | Path) -> None:
    """Refuse a network of far more weights than the file holds, before memory is taken for it.

    Args:
        model: class path and arguments.
        state: the weights.
        source: the file, for the complaint.

    Raises:
        UserError: as said, the weights are no tensors under names, or the arguments describe no network.
    """
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"checkpoint {source} does not hold tensors under names; use another file")
    family = str(model["class_path"]).startswith(FAMILIES)
    try:
        needed = weights_of_family(model) if family else weights_of_transformer(model["init_args"])
    except (LookupError, TypeError, UserError) as error:
        raise UserError(f"checkpoint {source} does not say which network it holds ({error}); use another") from error
    if needed > 2 * sum(tensor.numel() for tensor in state.values()):  # a tensor that is missing is named later
        raise UserError(f"checkpoint {source}: the weights do not fit the model it names (it has {needed:,})")


def weights_of_transformer(init_args: dict[str, Any]) -> int:
    """About how many weights the arguments of a model ask for, or those of a Joint that holds it."""
    config = TransformerConfig.of(init_args.get("generative", {"init_args": init_args})["init_args"]["transformer"])
    blocks = 12 * config.n_layers * config.d_model**2
    return blocks + config.d_model * (config.n_positions + 2 * config.vocab_size)


def weights_of_family(model: dict[str, Any]) -> int:
    """How many weights a network of another family has, built without memory for them."""
    with torch.device("meta"):
        sketch: RecipeModule = build(model, RecipeModule, {"igpt"} | allowed_imports())
    return sum(parameter.numel() for parameter in sketch.parameters())


def check_order(order: Tensor) -> None:
    """Raise a UserError unless each pixel stands in the sequence once."""
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise UserError("its order of pixels does not name each pixel once")
