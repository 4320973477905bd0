"""A check of the whole contract of a data module, for the tests of a plug-in:

from igpt.testing import check_data_module
def test_my_images():
    check_data_module(lambda: MyImages(root="tests/images"))
"""

from collections.abc import Callable

import torch
from torch import Tensor

from igpt.checkpoints import build
from igpt.data import NO_LABEL, SPLITS, ImageDataModule


def check_data_module(make: Callable[[], ImageDataModule]) -> None:
    """Check what igpt relies on; `make` builds the data module anew at each call.

    Batches are `(uint8 (B, 3, R, R), int64 (B,))`; labels lie in 0..num_classes-1, or are all -1 where there are none;
    the splits are not empty, the same at every call, and in the same order at every pass; training order changes from
    epoch to epoch and is the same for the same seed; `spec()` builds an equal data module.

    Raises:
        AssertionError: says which part of the contract is broken.
    """
    data = make()
    assert isinstance(data, ImageDataModule), f"{type(data).__name__} must be a subclass of igpt.data.ImageDataModule"
    spec = data.spec()
    package = spec["class_path"].partition(".")[0]
    rebuilt = build(spec, ImageDataModule, {package})
    assert rebuilt.spec() == spec, "spec() must describe a data module that describes itself the same way"
    data.prepare_data()
    data.setup("fit")
    for name in SPLITS:
        assert data.size(name) > 0, f"the {name} split is empty"
        _check_batch(data, name)
    again = make()
    again.prepare_data()
    for name in SPLITS:
        assert _same(_first(data, name), _first(data, name)), f"the {name} loader must keep its order"
        assert _same(_first(data, name), _first(again, name)), f"the {name} split must be the same every time"
    loader, twin = data.train_dataloader(), again.train_dataloader()
    first, second = next(iter(loader)), next(iter(loader))
    assert _same(first, next(iter(twin))), "the training order must depend on the seed alone"
    if data.size("train") > 8:
        assert not torch.equal(first[0], second[0]), "the training order must change from epoch to epoch"


def _first(data: ImageDataModule, name: str) -> tuple[Tensor, Tensor]:
    images, labels = next(iter(data.loader(name)))  # type: ignore[arg-type]
    return images, labels


def _same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def _check_batch(data: ImageDataModule, name: str) -> None:
    images, labels = _first(data, name)
    expected = (len(labels), 3, *data.shape)
    assert images.dtype == torch.uint8, f"{name}: images must be uint8, not {images.dtype}"
    assert tuple(images.shape) == expected, f"{name}: images have shape {tuple(images.shape)}, not {expected}"
    assert labels.dtype == torch.int64, f"{name}: labels must be int64, not {labels.dtype}"
    assert labels.ndim == 1, f"{name}: labels must have shape (B,)"
    if data.num_classes == 0:
        assert (labels == NO_LABEL).all(), f"{name}: without num_classes every label must be {NO_LABEL}"
    else:
        inside = (labels >= 0) & (labels < data.num_classes)
        assert inside.all(), f"{name}: labels must lie in 0..{data.num_classes - 1}"
