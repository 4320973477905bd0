"""Tensors of a folder of weight files (safetensors, or .bin read as data), by name and one at a time."""

import json
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from igpt.interop.imported import Shape
from igpt.system import UserError

FILES = ("model.safetensors", "pytorch_model.bin")
AGAIN = "download or export it again"


@dataclass(frozen=True)
class Weights:
    """What a folder's weight files hold: name to shape, and name to the file that it is in."""

    shapes: dict[str, Shape]
    files: dict[str, Path]

    def read(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, views that are only good until the next.

        A safetensors file is mapped anew for each: pages of a map count as resident memory, so one map for all would
        hold the whole model a second time.
        """
        for file in sorted({self.files[name] for name in names}):
            inside = [name for name in names if self.files[name] == file]
            if file.suffix == ".bin":
                content = _load_bin(file)
                yield from ((name, content[name]) for name in inside)
                continue
            for name in inside:
                with safe_open(file, "pt") as part:
                    yield name, part.get_tensor(name)


def open_weights(folder: Path) -> Weights:
    """Names, shapes and files of all tensors of a folder; of .safetensors and .bin, the first.

    Raises:
        UserError: there are no weights, a file is missing, cut short, or holds something other than tensors.
    """
    weights = Weights({}, {})
    for file in _files(folder):
        in_bin = file.suffix == ".bin"
        shapes = {n: tuple(t.shape) for n, t in _load_bin(file).items()} if in_bin else shapes_of_safetensors(file)
        for name, shape in shapes.items():
            if name in weights.files:
                raise UserError(f"{file} and {weights.files[name].name} both hold the tensor {name}; {AGAIN}")
            weights.shapes[name], weights.files[name] = shape, file
    return weights


def _files(folder: Path) -> list[Path]:
    """The file of weights, or the files that an index names."""
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            return _parts(index)
    raise UserError(f"{folder} holds no weights; it needs one of {', '.join(FILES)}, whole or in parts with an index")


def _parts(index: Path) -> list[Path]:
    """Files that an index names, in its own folder."""
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise UserError(f"{index} has no weight_map from tensors to files; {AGAIN}")
    for tensor, name in content.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise UserError(f"{index} looks for {tensor!r} in {name!r}, which is no weight file beside it; {AGAIN}")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name} is missing, which {index.name} names for {tensor!r}; {AGAIN}")
    return sorted({index.parent / name for name in content.values()})


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        UserError: it is not there, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {AGAIN}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON; {AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; {AGAIN}")
    return content


def shapes_of_safetensors(file: Path) -> dict[str, Shape]:
    """Names and shapes from the header.

    Raises:
        UserError: the header is damaged, or the file is not as long as it says.
    """
    try:
        with safe_open(file, "pt") as whole:
            return {name: tuple(whole.get_slice(name).get_shape()) for name in whole.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is cut short or damaged, not a whole safetensors file; {AGAIN}") from error


def _load_bin(file: Path) -> dict[str, Tensor]:
    """A mapped .bin file; what is not tensors under names is refused, and no code in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strange pickles; what cannot be read safely is refused below
            content: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds something other than tensors, which is refused and was not executed; use model.safetensors"
        ) from error
    except Exception as error:  # foreign bytes lead to any
        raise UserError(f"{file} is cut short, or of the format before PyTorch 1.6; {AGAIN}") from error
    named = content.items() if isinstance(content, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in named):
        raise UserError(f"{file} does not hold tensors under names; use model.safetensors")
    return content
