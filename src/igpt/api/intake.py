"""Pictures of any kind come in: files, PIL images, arrays and tensors, as batches of uint8 `(B, 3, R, R)`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from igpt.data import (
    BadImageError,
    Resolution,
    WatchedLoader,
    begin_worker,
    centre_crop_box,
    open_rgb,
    picture_suffixes,
    resample,
    upright_rgb,
)
from igpt.system import UserError, with_progress

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
Broken = list[tuple[str, str]]  # names and reasons of pictures that cannot be read


def as_list(images: Any) -> Sequence[Any]:
    """One image or many as a sequence of single ones; an array or a tensor of four dimensions is split along its first.

    Raises:
        UserError: there is none, or it is no sequence.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind == "U":  # names of files
        images = images.flatten().tolist()
    if isinstance(images, np.ndarray | Tensor):
        found: Sequence[Any] = images if images.ndim == 4 else [images]  # type: ignore[assignment]
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, dict):
        found = images
    else:
        raise UserError(f"images is a {type(images).__name__}; give an image, or a list of images")
    if not len(found):
        raise UserError("images is empty; give one image or more")
    return found


def as_tensor(image: Any, resolution: Resolution, background: str = "white") -> Tensor:
    """One image as uint8 `(3, R, R)`, cropped and resized by the rule of the data modules' evaluation.

    Args:
        image: a path; an image of PIL, of any mode; an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` with 1, 3
            or 4 channels, of whole numbers in 0..255 or floats in [0, 1]; or a pair of one of these and a label.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(image, tuple) and len(image) == 2 and np.ndim(image[1]) == 0 and hasattr(image[1], "__index__"):
        image = image[0]  # an item of a labelled data set
    if isinstance(image, str | os.PathLike):
        if Path(image).is_dir():
            raise UserError(f"images: {image} is a folder; give its files, such as igpt.find_pictures({str(image)!r})")
        rgb = open_rgb(Path(image), background)
    elif isinstance(image, Image.Image):
        rgb = from_pil(image, background)
    elif isinstance(image, np.ndarray | Tensor):
        rgb = from_pil(Image.fromarray(as_pixels(image)), background)
    else:
        raise UserError(f"images: {type(image).__name__} is no image; give paths, PIL images, arrays or tensors")
    return resample(rgb, centre_crop_box(rgb.size, resolution), resolution)


def from_pil(image: Image.Image, background: str = "white") -> Image.Image:
    """An image of PIL as RGB, upright, transparency on the background."""
    try:
        return upright_rgb(image, background)
    except (BadImageError, OSError) as error:
        raise UserError(f"images: a PIL image of mode {image.mode} cannot be read ({error})") from error


def as_pixels(image: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, Any]:
    """An array or tensor as uint8 `(H, W)`, `(H, W, 3)` or `(H, W, 4)`.

    Where both the first and the last dimension could be the channels, a tensor's are first and an array's last.
    """
    first = isinstance(image, Tensor)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if image.ndim == 3:
        if image.shape[0] in CHANNELS and (first or image.shape[2] not in CHANNELS):
            image = np.moveaxis(image, 0, 2)
        image = image[:, :, 0] if image.shape[2] == 1 else image
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in CHANNELS) or not image.size:
        raise UserError(
            f"images: shape {image.shape} is no image; give (H, W), (H, W, C) or (C, H, W), C one of 1, 3, 4"
        )
    return np.ascontiguousarray(as_bytes(image))


def as_bytes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers as uint8: whole ones in 0..255 as they are, floats in [0, 1] times 255, rounded."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "fiub":
        raise UserError(f"images: numbers of type {values.dtype} are no pixels; give uint8, or floats in [0, 1]")
    top = 1 if values.dtype.kind in "fb" else 255
    if not (values.min() >= 0 and values.max() <= top):  # also false for NaN
        kind = "floats must lie in [0, 1]" if top == 1 else "whole numbers must lie in 0..255"
        raise UserError(f"images: {kind}, and these go from {values.min():g} to {values.max():g}; scale them")
    return np.rint(values * (255.0 / top)).astype(np.uint8)


class Given(Dataset[Any]):
    """The images as uint8 `(3, R, R)`, or as a string: why one cannot be read."""

    def __init__(self, images: Sequence[Any], resolution: Resolution, background: str) -> None:
        self.images, self.resolution, self.background = images, resolution, background

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return as_tensor(self.images[index], self.resolution, self.background)
        except UserError as error:
            return str(error)


def batches(
    images: Any,
    resolution: Resolution,
    size: int,
    workers: int = 0,
    broken: Broken | None = None,
    background: str = "white",
) -> Iterator[Tensor]:
    """All images in their order as uint8 `(B, 3, R, R)`, B = `size` in all batches but the last.

    Args:
        images: one image or many; see `as_tensor`.
        workers: processes that read and resize.
        broken: list that takes those that cannot be read; they are left out. None raises a UserError about the first.
        background: colour that transparent images are laid on.
    """
    given = as_list(images)
    if size < 1 or workers < 0:
        raise UserError("batch_size must be at least 1, and workers at least 0")
    kept: list[Tensor] = []
    for number, one in enumerate(read(Given(given, resolution, background), workers)):
        if isinstance(one, str):
            if broken is None:
                raise UserError(one)
            broken.append((str(given[number]), one))
            continue
        kept.append(one)
        if len(kept) == size:
            yield torch.stack(kept)
            kept = []
    if kept:
        yield torch.stack(kept)


def read(data: Given, workers: int) -> Iterator[Tensor | str]:
    """Each image, or why it cannot be read; counted on a terminal where there are many."""
    if workers:
        loader = WatchedLoader(
            data,
            batch_size=16,
            num_workers=workers,
            collate_fn=list,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),
        )
        found: Iterator[Tensor | str] = (one for part in loader for one in part)
    else:
        found = (data[index] for index in range(len(data)))
    return with_progress(found, len(data), "images", quiet=True)


def find_pictures(places: str | Path | Sequence[str | Path]) -> list[str]:
    """The picture files that paths stand for: a file for itself, a folder for all pictures below it, sorted.

    Files in folders are known by their suffix; what is hidden is left out.

    Raises:
        UserError: there is no such file or folder, or no picture below a folder.
    """
    found: list[str] = []
    for place in [places] if isinstance(places, str | Path) else places:
        if not os.path.isdir(place):
            if not os.path.lexists(place):
                raise UserError(f"{place} does not exist; name picture files, or folders of them")
            found.append(str(place))
            continue
        below = pictures_below(str(place))
        if not below:
            raise UserError(f"folder {place} has no pictures; name another")
        found += below
    return found


def pictures_below(folder: str) -> list[str]:
    """The pictures of a folder and of those in it, by their suffix, sorted part by part."""
    suffixes, found = picture_suffixes(), []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        wanted = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes)
        found += [os.path.join(place, name) for name in wanted]
    return sorted(found, key=lambda path: path.replace(os.sep, "\0"))
