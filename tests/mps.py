"""Stands in for the GPU of a Mac: tensors that say they are there, lie on the CPU, and refuse what MPS refuses.

That is float64, NumPy, and operations on tensors of which some are on the device and some are not. What is computed is
real. Operations that MPS lacks are not known here: PyTorch itself takes these to the CPU (`igpt.cli`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from lightning.fabric.accelerators.mps import MPSAccelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps", 0)
WIDE = (torch.float64, torch.complex128)
ANSWERS = {Tensor.device.__get__: DEVICE, Tensor.is_mps.__get__: True, Tensor.is_cpu.__get__: False}
BETWEEN = {Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__, Tensor.data.__set__}  # take tensors of two devices


class OnMPS(Tensor):
    """A tensor on the device."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in ANSWERS:
            return ANSWERS[func]
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert mps:0 device type tensor to numpy; use Tensor.cpu() first")
        if func is Tensor.__reduce_ex__:  # saved; PyTorch's own are read to the CPU, whose these then are
            return args[0].cpu().__reduce_ex__(*args[1:])
        if func is Tensor.cpu or is_here(kwargs.get("device")):
            kwargs.pop("device", None)
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs).clone().as_subclass(Tensor)
        if func is torch._has_compatible_shallow_copy_type:
            return isinstance(args[0], cls) and isinstance(args[1], cls)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func not in BETWEEN and any(not isinstance(tensor, cls) and tensor.dim() for tensor in tensors):
            raise RuntimeError(f"{func.__name__}: expected all tensors on one device, found at least two, mps and cpu")
        if func is Tensor.copy_ and isinstance(args[0], cls):
            there(args[1])  # may it be there?
        if is_there(kwargs.get("device")):
            kwargs = kwargs | {"device": "cpu"}
        stays = func is not Tensor.copy_ or isinstance(args[0], cls)
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs)
        return tree_map(there, out) if stays and not isinstance(out, torch.Size) else out


def there(value: object) -> object:
    """A tensor as it is on the device."""
    if not isinstance(value, Tensor) or isinstance(value, OnMPS):
        return value
    if value.dtype in WIDE:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
    return value.as_subclass(OnMPS)


def is_there(asked: object) -> bool:
    """Whether this names the device, or is a tensor on it."""
    if isinstance(asked, Tensor):
        return isinstance(asked, OnMPS)
    return isinstance(asked, (str, torch.device)) and torch.device(asked).type == "mps"


def is_here(asked: object) -> bool:
    """Whether this names the CPU, or is a tensor on it."""
    if isinstance(asked, Tensor):
        return not isinstance(asked, OnMPS)
    return isinstance(asked, (str, torch.device)) and torch.device(asked).type == "cpu"


class Asking(TorchFunctionMode):
    """Makes tensors there for whoever asks for the device, and takes tensors there and back."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return moved(*args, **kwargs)
        if not is_there(kwargs.get("device")) or any(isinstance(leaf, OnMPS) for leaf in tree_leaves(args)):
            return func(*args, **kwargs)
        return there(func(*args, **kwargs | {"device": "cpu"}))


def moved(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
    """`tensor.to(...)`: to a device, a type, or those of another tensor."""
    given = (*args, *kwargs.values())
    dtypes = [x if isinstance(x, torch.dtype) else x.dtype for x in given if isinstance(x, (torch.dtype, Tensor))]
    kept = tensor if not dtypes or dtypes[0] == tensor.dtype else Tensor.type(tensor, dtypes[0])
    if any(map(is_there, given)) and not isinstance(tensor, OnMPS):
        return there(kept.clone())
    if any(map(is_here, given)) and isinstance(tensor, OnMPS):
        return kept.cpu()
    return kept


@contextmanager
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has the device, and no other than the CPU besides."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: True)  # which also asks for the processor
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: None)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with Asking():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
