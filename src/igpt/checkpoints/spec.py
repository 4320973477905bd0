"""Specs: objects as class path and constructor arguments, so that checkpoints need no pickle.

Classes follow one rule: every constructor argument is kept as an attribute of the same name.
"""

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from igpt.system import UserError


def plain(value: Any) -> Any:
    """Value as data that a checkpoint can hold and a YAML file can show."""
    if is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_dict", None)
        return own() if own else asdict(value)
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is not plain data")


def spec_of(instance: object, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """`{"class_path", "init_args"}` of an instance; a TypeError where an argument is no attribute or no plain data.

    Args:
        known: arguments whose value is not the attribute of the same name.
    """
    kind = type(instance)
    init_args = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{kind.__name__}.__init__ must name its arguments; it takes {parameter}")
        if known and name in known:
            init_args[name] = plain(known[name])
        elif hasattr(instance, name):
            init_args[name] = plain(getattr(instance, name))
        else:
            raise TypeError(f"{kind.__name__} must keep its argument '{name}' as an attribute of the same name")
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}


def build(spec: dict[str, Any], base: type, allowed: set[str]) -> Any:
    """Build what `spec` describes, if its class is a subclass of `base` from a package or module in `allowed`.

    Raises:
        UserError: the class is unknown, of another kind, or does not take these arguments.
    """
    if not isinstance(spec, dict):
        raise UserError(f"a {base.__name__} is described by {type(spec).__name__}, not by class path and arguments")
    path = str(spec.get("class_path", ""))
    module, _, name = path.rpartition(".")
    if module.rpartition(".")[2] == "__main__":  # importing it would run a program
        raise UserError(f"class {path!r} is of a program; a checkpoint names classes of modules")
    if not any(module == name or module.startswith(f"{name}.") for name in allowed):
        raise UserError(
            f"class {path!r} comes from no installed plug-in; install the package that provides it, or add "
            f"--allow-imports {module} if you trust it"
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"class {path!r} cannot be found ({error}); install the package that provides it") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(f"class {path!r} is no {base.__name__}")
    complete = getattr(kind, "completed", dict)  # a data module's, for checkpoints of older versions
    try:
        return kind(**complete(spec.get("init_args", {})))
    except TypeError as error:
        raise UserError(f"class {path!r} does not take the stored arguments: {error}") from error


def weights_sha256(spec: dict[str, Any], state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a network's description and of its tensors: weights, and what else it keeps."""
    found = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for name, value in state.items():
        found.update(name.encode())
        content: Any = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        found.update(content)
    return found.hexdigest()


def header_of(stored: Any, source: str | PathLike[str]) -> dict[str, Any]:
    """The header of a checkpoint, checked: a UserError unless it names its model by class path and arguments."""
    model = stored.get("model") if isinstance(stored, dict) else None
    kinds = {"class_path": str, "init_args": dict}
    if not isinstance(model, dict) or not all(isinstance(model.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"checkpoint {source} does not say which model it holds; use a file from runs/NAME/checkpoints")
    header: dict[str, Any] = stored
    return header
