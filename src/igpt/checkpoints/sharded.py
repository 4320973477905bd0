"""Checkpoint in several files, as FSDP writes them: a folder with a file for each process.

`meta.pt` holds all but weights and moments; `.metadata` says which piece of which tensor lies in which file.
"""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException  # derived from BaseException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from igpt.checkpoints.format import CHECKPOINT_KEY, META, instead_of, load_plain, misfits
from igpt.checkpoints.spec import header_of
from igpt.system import UserError

WEIGHTS = "state_dict."  # the names of weights begin with it
DESCRIBING = "torch.distributed.checkpoint.metadata"
KNOWN = {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("collections", "OrderedDict"),
}


def read_meta(path: str | Path) -> dict[str, Any]:
    """All but the weights and moments of a sharded checkpoint, as plain data.

    Raises:
        UserError: it is not whole, or not a checkpoint of igpt.
    """
    try:
        content = load_plain(Path(path) / META)
    except Exception as error:  # on a stranger's file, anything
        raise UserError(f"checkpoint {path} is a folder without a readable {META}; use an earlier one") from error
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise UserError(f"checkpoint {path} was not written by igpt; use a folder from runs/NAME/checkpoints")
    return content | {CHECKPOINT_KEY: header_of(content[CHECKPOINT_KEY], path)}


def read_sharded(path: str | Path) -> dict[str, Any]:
    """A sharded checkpoint's content without the optimizer, as `read_checkpoint` returns it; nothing is executed.

    Raises:
        UserError: it is not whole, damaged, or holds something other than tensors and plain data.
    """
    check_sums(path)
    return {**read_meta(path), "state_dict": dict(weights_of(path))}


def check_sums(path: str | Path) -> None:
    """Raise a UserError where a file of a sharded checkpoint does not have its checksum."""
    if wrong := misfits(Path(path)):
        raise UserError(f"checkpoint {path} is damaged: {', '.join(wrong)} changed or lost; {instead_of(Path(path))}")


def weights_of(path: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Name and whole tensor of each weight, one after the other; errors as of `read_sharded`."""
    try:
        reader = PlainReader(path)
        for key, entry in reader.read_metadata().state_dict_metadata.items():
            if key.startswith(WEIGHTS) and isinstance(entry, TensorStorageMetadata):
                name = key.removeprefix(WEIGHTS)
                held = {name: torch.empty(entry.size, dtype=entry.properties.dtype)}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that this is one process is meant
                    load({"state_dict": held}, storage_reader=reader, no_dist=True)
                yield name, held[name]
    except pickle.UnpicklingError as error:
        raise UserError(f"checkpoint {path} holds something other than tensors and plain data ({error})") from error
    except (Exception, CheckpointException) as error:
        raise UserError(
            f"checkpoint {path} cannot be read: a part is missing or damaged; use an earlier one"
        ) from error


class PlainReader(FileSystemReader):
    """Reads `.metadata` as data: torch's own reader would execute what it holds."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Where each tensor lies."""
        with (Path(self.path) / ".metadata").open("rb") as file:
            found: Metadata = PlainUnpickler(file).load()
        return found


class PlainUnpickler(pickle.Unpickler):
    """Knows the classes that describe tensors and their places, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, or an UnpicklingError."""
        kind = getattr(torch, name, None) if module == "torch" else None
        if module == DESCRIBING and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        if (module, name) in KNOWN or isinstance(kind, torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")
