"""What the page's buttons do: functions of a desk and of arrays, which know nothing of a browser."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.api import Model
from igpt.data import enlarge, heat
from igpt.system import UserError

Bytes = NDArray[np.uint8]
Kept = Literal["half", "unpainted", "painted"]
SIDE = 256  # pixels that a shown picture is about wide
PAINTED = 0.25  # share of a pixel of the network that the brush must cover
MOST = 16  # completions of one click
NONE_YET = "There is no picture yet: upload or draw one above, or take an example."


@dataclass
class Desk:
    """One model that all users of the page share; whoever runs it holds the lock, so that no two results are mixed.

    Args:
        model: ready for pictures.
        limit: images of its own data that neighbours are looked for among.
        stopped: sessions of the browser whose completions are to end.
    """

    model: Model
    limit: int = 256
    stopped: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def own_images(self) -> Bytes:
        """The first images of the data's training split, uint8 `(N, R, R, 3)`.

        Raises:
            UserError: the checkpoint knows no data, or its files are not there.
        """
        data = self.model.data()
        data.check_pictures()
        data.prepare_data()
        images = data.images("train")
        found = [images[index][0] for index in range(min(self.limit, len(images)))]
        return torch.stack(found).permute(0, 2, 3, 1).contiguous().numpy()

    @cached_property
    def own_features(self) -> dict[int, NDArray[np.float32]]:
        """Features of every layer of `own_images`, `{layer: (N, D)}`, each row of length 1."""
        found = self.model.features(list(self.own_images))
        return {layer: unit(values) for layer, values in found.items()}


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of `(N, D)`, each divided by its length."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    divided: NDArray[np.float32] = values / np.maximum(lengths, 1e-12)
    return divided


def seen(model: Model, picture: Any) -> Bytes:
    """A picture of any size as the network takes it, uint8 `(R, R, 3)`.

    Raises:
        UserError: there is none, or nothing was drawn on it.
    """
    if picture is None or not np.size(picture):
        raise UserError(NONE_YET)
    pixels = np.asarray(picture)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and not pixels[:, :, 3].any():
        raise UserError(NONE_YET)
    (batch,) = model.batches([unrepeated(pixels, model.shape)])
    return np.ascontiguousarray(batch[0].permute(1, 2, 0).numpy())


def unrepeated(pixels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """What `shown` was given, where each pixel is repeated; other pictures as they are.

    So an example comes back as it was: resampling would blur its repeated pixels.
    """
    factor = pixels.shape[0] // shape[0]
    if factor < 2 or pixels.shape[:2] != (shape[0] * factor, shape[1] * factor):
        return pixels
    small = pixels[::factor, ::factor]
    same = np.array_equal(small.repeat(factor, 0).repeat(factor, 1), pixels)
    return small if same else pixels


def shown(picture: Any, side: int = SIDE) -> Bytes:
    """A small picture `(R, R, 3)` with each pixel repeated, about `side` pixels wide."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)
    large = enlarge(pixels, max(1, side // pixels.shape[2]))
    return np.ascontiguousarray(large.permute(1, 2, 0).numpy())


def region(model: Model, layers: list[Any], kept: Kept) -> NDArray[np.bool_] | None:
    """What is drawn anew, bool `(R, R)`, from what was painted on RGBA layers `(H, W, 4)`; None is the lower half.

    Raises:
        UserError: nothing is painted, or nothing is left to draw.
    """
    if kept == "half":
        return None
    alphas = [np.asarray(layer)[:, :, 3] > 0 for layer in layers if layer is not None]
    painted = np.any(alphas, axis=0) if alphas else np.zeros((1, 1), bool)
    if not painted.any():
        raise UserError("Nothing is painted yet: paint over a part of the picture, or keep the upper half.")
    (batch,) = model.batches([np.where(painted, 255, 0).astype(np.uint8)])
    found: NDArray[np.bool_] = batch[0, 0].numpy() > PAINTED * 255
    drawn = found if kept == "unpainted" else ~found
    if not drawn.any():
        raise UserError("Nothing is left to draw: paint less, so that a part is free.")
    return drawn


def completions(
    desk: Desk, picture: Any, drawn: NDArray[np.bool_] | None, num: int, temperature: float, top_k: int, seed: int
) -> Iterator[Bytes]:
    """Pictures uint8 `(R, R, 3)` one by one, number i by seed + i; the lock is free between two of them.

    Raises:
        UserError: an option is out of range.
    """
    if not 1 <= num <= MOST:
        raise UserError(f"The number of completions must lie between 1 and {MOST}.")
    small = seen(desk.model, picture)
    for number in range(num):
        with desk.lock:
            found = desk.model.complete(
                small, num=1, region=drawn, temperature=temperature, top_k=top_k, seed=seed + number
            )
        yield np.asarray(found[0, 0])


def surprise(desk: Desk, picture: Any) -> tuple[Bytes, float]:
    """A heat map uint8 `(R, R, 3)` of -log p of each pixel, and their mean in nats."""
    small = seen(desk.model, picture)
    with desk.lock:
        nats = torch.from_numpy(desk.model.nll(small, per_pixel=True))
    map_ = heat(nats, max(float(nats.max()), 1e-6))[0]
    return np.ascontiguousarray(map_.permute(1, 2, 0).numpy()), float(nats.mean())


def classes(desk: Desk, picture: Any, top: int = 10) -> dict[str, float]:
    """Probabilities of the likeliest classes by their names."""
    small = seen(desk.model, picture)
    with desk.lock:
        return dict(desk.model.predict(small).top(top)[0])


def neighbours(desk: Desk, picture: Any, layer: int, count: int = 8) -> list[tuple[Bytes, float]]:
    """The images of the model's own data that are nearest in a layer's features, with the cosine of each."""
    small = seen(desk.model, picture)
    with desk.lock:
        own = desk.own_features[layer]
        asked = unit(desk.model.features(small, layer)[layer])[0]
        cosines = own @ asked
        nearest = np.argsort(-cosines, kind="stable")[:count]
        return [(desk.own_images[index], float(cosines[index])) for index in nearest]


def example(desk: Desk, number: int) -> Bytes:
    """An image of the model's own data, uint8 `(R, R, 3)`; numbers beyond their end begin anew."""
    with desk.lock:
        return np.asarray(desk.own_images[number % len(desk.own_images)])


def colours(desk: Desk, picture: Any) -> Bytes:
    """The picture in the palette's colours, uint8 `(R, R, 3)`."""
    small, palette = seen(desk.model, picture), desk.model.palette
    with desk.lock:
        return np.asarray(palette.decode(palette.encode(small))[0])


def swatches(rgb: Bytes, side: int = 24) -> Bytes:
    """The colours `(k, 3)` as squares by brightness, RGBA `(H, W, 4)`; what is left over is transparent."""
    order = np.argsort(rgb.astype(int) @ [299, 587, 114], kind="stable")
    columns = int(np.ceil(np.sqrt(len(rgb) * 2)))
    rows = -(-len(rgb) // columns)
    canvas = np.zeros((rows * columns, 4), np.uint8)
    canvas[: len(rgb), :3], canvas[: len(rgb), 3] = rgb[order], 255
    squares = canvas.reshape(rows, columns, 4)
    return squares.repeat(side, 0).repeat(side, 1)
