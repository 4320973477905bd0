"""Checks of the whole contract of a data module, and of a source of features, for the tests of a plug-in:

from igpt.testing import check_data_module, check_source
def test_my_images():
    check_data_module(lambda: MyImages(root="tests/images"))
def test_my_network():
    check_source(lambda: MyNetwork())
"""

import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from igpt.checkpoints import build
from igpt.data import NO_LABEL, SPLITS, ImageDataModule, UserError, check_item, shape_of
from igpt.families import FeatureSource, checked_features, checked_layers


def check_data_module(make: Callable[[], ImageDataModule]) -> None:
    """Check what igpt relies on; `make` builds the data module anew at each call.

    Batches are `(uint8 (B, 3, R, R), int64 (B,))`, or of grids of VQ tokens where the data have a `token_stride`;
    labels lie in 0..num_classes-1, or are all -1 where there are none; the splits are not empty, the same at every
    call, and in the same order at every pass; training order changes from epoch to epoch and is the same for the same
    seed; `spec()` builds an equal data module.

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
    try:
        check_item((images[0], 0), data.resolution, data.token_stride)
    except UserError as error:
        raise AssertionError(f"{name}: {error}") from error
    assert len(images) == len(labels), f"{name}: {len(images)} images have {len(labels)} labels"
    assert labels.dtype == torch.int64, f"{name}: labels must be int64, not {labels.dtype}"
    assert labels.ndim == 1, f"{name}: labels must have shape (B,)"
    if data.num_classes == 0:
        assert (labels == NO_LABEL).all(), f"{name}: without num_classes every label must be {NO_LABEL}"
    else:
        inside = (labels >= 0) & (labels < data.num_classes)
        assert inside.all(), f"{name}: labels must lie in 0..{data.num_classes - 1}"


def check_source(make: Callable[[], FeatureSource], resolution: int = 32) -> None:
    """Check what igpt relies on; `make` builds the source anew at each call.

    Layers have names, each once, and give `(B, D)` floating numbers that are finite, in the order they are asked for;
    an image's features are the same whatever stands beside it, at every call, and in every source that `make` builds;
    images stay as they are; tokens are `(B, T, D)` of the same kind; `spec()` is plain data; a likelihood is one number
    an image, at most that of certainty; and samples are images, the same for the same seed.

    Args:
        resolution: side of the images for a source that takes any.

    Raises:
        AssertionError: says which part of the contract is broken.
        UserError: the same, of layers and features.
    """
    source, again = make(), make()
    assert isinstance(source, FeatureSource), f"{type(source).__name__} must be an igpt.families.FeatureSource"
    layers, shape = checked_layers(source), shape_of(source.resolution or resolution)
    images = torch.randint(0, 256, (3, 3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before = images.clone()
    with torch.no_grad():
        found = checked_features(source.eval(), images, layers)
        assert torch.equal(images, before), "features() must leave the images as they are"
        turned = checked_features(source, images.flip(0), layers[::-1])
        alone, twin = checked_features(source, images[:1], layers), checked_features(again.eval(), images, layers)
    for name, part, other, one, same in zip(layers, found, turned[::-1], alone, twin, strict=True):
        assert _near(part, other.flip(0)), f"features() of {name!r} must not hang on the order of images and layers"
        assert _near(part[:1], one), f"features() of {name!r} must not hang on what else is in the batch"
        assert torch.equal(part, same), f"features() of {name!r} must be the same in every source of this kind"
    assert json.dumps(source.spec()) == json.dumps(again.spec()), "spec() must be the same plain data every time"
    if source.offers("tokens"):
        _check_tokens(source, images, layers)
    if source.offers("log_likelihood"):
        _check_likelihood(source.log_likelihood(images), len(images))
    if source.offers("sample"):
        _check_samples(source, shape)


def _near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)


def _check_tokens(source: FeatureSource, images: Tensor, layers: Sequence[str]) -> None:
    with torch.no_grad():
        found = checked_features(source, images, layers, "tokens")
        turned = checked_features(source, images.flip(0), layers[::-1], "tokens")
    for name, part, other in zip(layers, found, turned[::-1], strict=True):
        assert _near(part, other.flip(0)), f"tokens() of {name!r} must not hang on the order of images and layers"


def _check_likelihood(nats: Tensor, images: int) -> None:
    assert tuple(nats.shape) == (images,), f"log_likelihood() has shape {tuple(nats.shape)}, not ({images},)"
    assert bool((nats <= 0).all()), "log_likelihood() of bytes is at most 0, in nats"


def _check_samples(source: FeatureSource, shape: tuple[int, int]) -> None:
    one, other = source.sample(2, seed=1), source.sample(2, seed=1)
    assert one.dtype == torch.uint8, f"sample() must give uint8, not {one.dtype}"
    assert tuple(one.shape) == (2, 3, *shape), f"sample() gave {tuple(one.shape)}, not {(2, 3, *shape)}"
    assert torch.equal(one, other), "sample() must be the same for the same seed"
