"""Tensors of a folder of weight files (safetensors, or .bin read as data), by name and one at a time.

A file is mapped for as long as one tensor is copied out of it: pages of a map count as resident memory, so that a map
kept open would hold the whole model a second time.
"""

import json
import pickle
import struct
import warnings
from collections.abc import Callable
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
LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes
OFF = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)  # what foreign bytes lead to
BIN_REOPENED = 1 << 29  # bytes read from a .bin between two maps of it; opening one means reading its pickle again


@dataclass(frozen=True)
class Weights:
    """What a folder's weight files hold: name to shape, and name to the file that it is in."""

    shapes: dict[str, Shape]
    files: dict[str, Path]

    def read_each(self, names: list[str], take: Callable[[str, Tensor], None]) -> None:
        """Hand every named tensor to `take`, as a view that is only good until `take` returns."""
        for file in sorted({self.files[name] for name in names}):
            inside = [name for name in names if self.files[name] == file]
            (_each_of_safetensors if file.suffix == ".safetensors" else _each_of_bin)(file, inside, take)


def open_weights(folder: Path) -> Weights:
    """Names, shapes and files of all tensors of a folder; of .safetensors and .bin, the first.

    Raises:
        UserError: there are no weights, a file is missing, cut short, or holds something other than tensors.
    """
    for name in FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            files = [folder / name]
        elif index.is_file():
            files = _shards(index)
        else:
            continue
        return _together(files)
    raise UserError(f"{folder} holds no weights; it needs one of {', '.join(FILES)}, whole or in parts with an index")


def _together(files: list[Path]) -> Weights:
    """What several files hold between them."""
    weights = Weights({}, {})
    for file in files:
        found = shapes_of_safetensors(file) if file.suffix == ".safetensors" else _shapes_of_bin(file)
        for name, shape in found.items():
            if name in weights.files:
                raise UserError(f"{file} and {weights.files[name].name} both hold the tensor {name}; {AGAIN}")
            weights.shapes[name], weights.files[name] = shape, file
    return weights


def _shards(index: Path) -> list[Path]:
    """Files that an index names; only plain names in its own folder."""
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content.values()):
        raise UserError(f"{index} has no weight_map from tensors to files; {AGAIN}")
    for tensor, name in content.items():
        if Path(name).name != name or Path(name).suffix not in (".safetensors", ".bin"):
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
    """Names and shapes from the header; the library would say of a file cut short neither its name nor the tensor.

    Raises:
        UserError: the header is damaged, or names the first tensor whose bytes are not all there.
    """
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        room = file.stat().st_size - 8 - length
        for name, entry in entries:
            if entry["data_offsets"][1] > room:
                raise UserError(f"{file} is cut short: the tensor {name} is not whole; {AGAIN}")
        with safe_open(file, "pt") as whole:  # checks the rest: types, overlaps, what is left over
            return {name: tuple(whole.get_slice(name).get_shape()) for name in whole.keys()}  # noqa: SIM118
    except (*OFF, RecursionError, struct.error, SafetensorError) as error:
        raise UserError(f"{file} is not a whole safetensors file; {AGAIN}") from error


def _each_of_safetensors(file: Path, names: list[str], take: Callable[[str, Tensor], None]) -> None:
    for name in names:
        with safe_open(file, "pt") as part:
            take(name, part.get_tensor(name))


def _load_bin(file: Path) -> dict[str, Tensor]:
    """A mapped .bin file; what is not tensors under names is refused, and no code in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strange pickles; what cannot be read safely is refused below
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds something other than tensors, which is refused and was not executed; use model.safetensors"
        ) from error
    except (*OFF, RuntimeError, EOFError, struct.error) as error:
        raise UserError(
            f"{file} cannot be read: it is cut short, or of the format before PyTorch 1.6; {AGAIN}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file} does not hold tensors under names; use model.safetensors")
    return content


def _shapes_of_bin(file: Path) -> dict[str, Shape]:
    return {str(name): tuple(tensor.shape) for name, tensor in _load_bin(file).items()}


def _each_of_bin(file: Path, names: list[str], take: Callable[[str, Tensor], None]) -> None:
    done = BIN_REOPENED
    content: dict[str, Tensor] = {}
    for name in names:
        if done >= BIN_REOPENED:
            content.clear()
            done, content = 0, _load_bin(file)
        take(name, content[name])
        done += content[name].nbytes
