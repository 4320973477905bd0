"""The colour palette: fit on pixels, encode images to tokens, decode tokens to images (paper, section 3.2).

Shapes: B images, R resolution, T = R * R tokens in raster order, k colours. The file format is the released one:
float32 `(k, 3)`, colours in [-1, 1], `RGB = rint(127.5 (c + 1))`.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from igpt.palette.counting import RGB_CODES, ColorCounts
from igpt.palette.kmeans import nearest_of, weighted_kmeans
from igpt.system import UserError, atomic_path

MAX_COLORS = 1 << 15  # the table holds int16
MAGIC = b"\x93NUMPY"
TABLE_CHUNK = 1 << 15
BLOCK_CANDIDATES = 16
BLOCK_REACH = 2 * 1.5 * 3**0.5 + 0.5  # a block's diagonal, and slack for float32 distances
ENCODE_CHUNK = 1 << 17  # pixels looked up at once, so that their codes stay in the cache
TABLE_SLAB = 4  # layers of blocks that are worked on at once, to keep memory small


class Palette(nn.Module):
    """k colours as a buffer, float32 `(k, 3)` in [-1, 1], and the exact nearest of every 24-bit RGB value as a table.

    Raises:
        UserError: the colours have another shape or range.
    """

    colors: Tensor
    stride = 1  # pixels of a token's side
    written = None  # a config names no sizes of colours; see `VQTokens`

    def __init__(self, colors: Tensor) -> None:
        super().__init__()
        self.register_buffer("colors", check_colors(colors, "palette"))
        self._table: Tensor | None = None  # built when first needed, and never in the state dict

    @classmethod
    def blank(cls, k: int) -> "Palette":
        """A palette still to be filled from a state dict; its colours are NaN until then."""
        palette = cls(torch.zeros(k, 3))
        palette.colors.fill_(math.nan)
        return palette

    @property
    def has_table(self) -> bool:
        """Whether the table of nearest colours is built, which costs a second at the first use."""
        return self._table is not None

    @property
    def is_blank(self) -> bool:
        """Whether the colours are still to come."""
        return bool(self.colors.isnan().any())

    @property
    def k(self) -> int:
        """Number of colours, which is the vocabulary size of the transformer."""
        return self.colors.shape[0]

    @property
    def sha256(self) -> str:
        """Digest of the colours: the palette's name in checkpoints and shards."""
        return sha256_of_colors(self.colors.detach().cpu().numpy())

    @classmethod
    def load(cls, path: str | Path) -> "Palette":
        """Read a `.npy` palette file.

        Raises:
            UserError: no such file, not an array, or an array of another shape or range.
        """
        try:
            if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for its other end
                raise OSError("no regular file")
            with open(path, "rb") as file:
                if file.read(len(MAGIC)) != MAGIC:  # an archive, of which NumPy would keep files open
                    raise ValueError("no array")
            array = np.load(path, mmap_mode="r", allow_pickle=False)  # so that a header that lies takes no memory
        except FileNotFoundError as error:
            raise UserError(
                f"palette file {path} does not exist; build one with 'igpt palette --out {path}'"
            ) from error
        except Exception as error:  # on foreign bytes NumPy raises anything, from EOFError to TokenError
            raise UserError(
                f"palette file {path} is not a NumPy array file (.npy); build one with 'igpt palette'"
            ) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise UserError(f"palette file {path} does not hold one float array (k, 3); build one with 'igpt palette'")
        check_shape(array.shape, f"palette file {path}")  # before any of it is read
        return cls(check_colors(torch.from_numpy(array.astype(np.float32)), f"palette file {path}"))

    def save(self, path: str | Path) -> None:
        """Write the released format: float32 `(k, 3)` in [-1, 1]."""
        with atomic_path(path) as temporary:
            np.save(temporary, self.colors.detach().cpu().numpy().astype(np.float32))

    def check(self, name: str) -> None:
        """Raise a UserError that begins with `name` unless the colours are a palette."""
        check_colors(self.colors, name)

    def rgb(self) -> Tensor:
        """The colours as uint8 `(k, 3)`."""
        return torch.round(127.5 * (self.colors + 1)).clamp(0, 255).to(torch.uint8)

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to tokens int64 `(B, R * R)`, raster order; ties go to the lower index."""
        planes = images.flatten(2)
        tokens = torch.empty(len(images), planes.shape[2], dtype=torch.int64, device=images.device)
        count = max(1, ENCODE_CHUNK // planes.shape[2])
        for part, found in zip(planes.split(count), tokens.split(count), strict=True):
            found.copy_(self._nearest(*part.unbind(1)))
        return tokens

    def decode(self, tokens: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Tokens `(B, T)` to images uint8 `(B, 3, rows, columns)` of this shape; without one they are square."""
        side = math.isqrt(tokens.shape[1])
        images: Tensor = self.rgb()[tokens].movedim(-1, 1).unflatten(2, shape or (side, side))
        return images

    def nearest(self, rgb: Tensor) -> Tensor:
        """Index int64 `(...)` of the colour nearest to each uint8 colour `(..., 3)`."""
        return self._nearest(*rgb.unbind(-1)).long()

    def _nearest(self, red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
        codes = red.to(torch.int32).mul_(256).add_(green).mul_(256).add_(blue)
        return self.table.index_select(0, codes.flatten()).view(codes.shape)

    @property
    def table(self) -> Tensor:
        """Index of the colour nearest to each 24-bit colour, int16 `(2^24,)` (`nearest_table`), on the device."""
        if self._table is None:
            self._table = torch.from_numpy(nearest_table(self.colors.cpu().numpy()))
        self._table = self._table.to(self.colors.device)
        return self._table

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self._table = None  # other colours may come in
        super()._load_from_state_dict(*args, **kwargs)


def sha256_of_colors(colors: NDArray[np.float32]) -> str:
    """Digest of colours `(k, 3)` as little-endian float32."""
    return hashlib.sha256(colors.astype("<f4").tobytes()).hexdigest()


def check_colors(colors: Tensor, name: str) -> Tensor:
    """Return `colors` if they are a palette, else raise a UserError that begins with `name`."""
    check_shape(tuple(colors.shape), name)
    if not colors.is_meta and not bool((colors.abs() <= 1.0 + 1e-6).all()):  # also false for NaN
        raise UserError(f"{name} has values outside [-1, 1]; colours are stored as RGB / 127.5 - 1")
    return colors.float()


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise a UserError that begins with `name` unless this is the shape of a palette."""
    if len(shape) != 2 or shape[1] != 3 or not 1 <= shape[0] <= MAX_COLORS:
        raise UserError(
            f"{name} has shape {shape}, not (k, 3) with 1 <= k <= {MAX_COLORS}; build one with 'igpt palette'"
        )


def nearest_table(colors: NDArray[np.float32]) -> NDArray[np.int16]:
    """Exact nearest colour, int16 `(2^24,)`, indexed by `red << 16 | green << 8 | blue`.

    The cube is cut into blocks of 4 x 4 x 4 colours. FAISS lists the palette colours nearest to a block's centre; of
    these only such are compared as can be nearest to a colour of the block. Float64 decides, ties going to the lower
    index.
    """
    exact = colors.astype(np.float64) * 127.5 + 127.5
    table = np.empty(RGB_CODES, dtype=np.int16)
    blocks = table.reshape(64, 4, 64, 4, 64, 4).transpose(0, 2, 4, 1, 3, 5)  # (block, block, block, within ...)
    for first in range(0, 64, TABLE_SLAB):
        red = np.arange(first, first + TABLE_SLAB)
        corners = 4 * np.stack(np.meshgrid(red, np.arange(64), np.arange(64), indexing="ij"), axis=-1).reshape(-1, 3)
        labels = _label_blocks(corners, exact)
        blocks[first : first + TABLE_SLAB] = labels.reshape(TABLE_SLAB, 64, 64, 4, 4, 4)
    return table


def _label_blocks(corners: NDArray[np.int64], colors: NDArray[np.float64]) -> NDArray[np.int16]:
    """Nearest colour of all 64 members of the blocks at `corners (N, 3)`, int16 `(N, 64)`."""
    squared, candidates = nearest_of(corners.astype(np.float32) + 1.5, colors.astype(np.float32), BLOCK_CANDIDATES)
    distance = np.sqrt(squared.clip(0))
    whole = distance[:, -1] > distance[:, 0] + BLOCK_REACH  # no colour beyond the list can be nearest in the block
    labels = np.empty((len(corners), 64), dtype=np.int16)
    for blocks, among in ((np.flatnonzero(whole), np.sort(candidates, axis=1)), (np.flatnonzero(~whole), None)):
        width = len(colors) if among is None else among.shape[1]
        for part in np.array_split(blocks, len(blocks) * width // TABLE_CHUNK + 1):
            choice = np.broadcast_to(np.arange(width), (len(part), width)) if among is None else among[part]
            labels[part] = _nearest_in_blocks(corners[part], colors, choice)
    return labels


def _nearest_in_blocks(
    corners: NDArray[np.int64], colors: NDArray[np.float64], choice: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For blocks `(N, 3)` with candidates `(N, C)`, in rising order, the nearest to each of the 64 members, `(N, 64)`.

    With a the candidate nearest to the centre m, c is nearer than a to some member only if the plane halfway between a
    and c cuts the block, which reaches 1.5 from m along each axis: |m - c|^2 <= |m - a|^2 + 3 |c - a|_1.
    """
    inside = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = colors[choice]  # (N, C, 3)
    squared = ((corners[:, None] + 1.5 - found) ** 2).sum(2)
    nearest = np.take_along_axis(found, squared.argmin(1)[:, None, None], axis=1)
    able = squared <= squared.min(1, keepdims=True) + 3 * np.abs(found - nearest).sum(2) + 1e-6  # of float64's rounding
    counts, labels = able.sum(1), np.empty((len(corners), 64), dtype=np.int64)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        few = choice[rows][able[rows]].reshape(len(rows), count)
        members = (corners[rows, None] + inside)[:, :, None]  # (n, 64, 1, 3)
        best = ((members - colors[few][:, None]) ** 2).sum(3).argmin(2) if count > 1 else np.zeros((len(rows), 64), int)
        labels[rows] = np.take_along_axis(few, best, axis=1)
    return labels


def fit_palette(counts: ColorCounts, k: int, seed: int = 0) -> Palette:
    """k-means over all counted pixels, in RGB (section 3.2); a UserError where there are fewer colours than `k`."""
    if not 1 <= k <= MAX_COLORS:
        raise UserError(f"--colors {k} is out of range; choose 1 to {MAX_COLORS}")
    unique = counts.unique()
    if unique < k:
        raise UserError(f"--colors {k}: the images have only {unique} different colours; choose at most {unique}")
    points, weights = counts.points()
    centroids = points if unique == k else weighted_kmeans(points, weights, k, seed)
    return Palette(torch.from_numpy((centroids / 127.5 - 1).astype(np.float32).clip(-1, 1)))


def group_colors(palette: Palette, count: int) -> Tensor:
    """Which of `count <= k` groups each colour belongs to, int64 `(k,)`, by k-means of the colours in RGB.

    Each group has at least one. The same colours give the same groups.
    """
    points = (palette.colors.cpu().numpy() * 127.5 + 127.5).astype(np.float32)
    centroids = weighted_kmeans(points, np.ones(len(points), np.float32), count, seed=0)
    squared, nearest = (found[:, 0] for found in nearest_of(points, centroids, 1))
    for empty in sorted(set(range(count)) - set(nearest.tolist())):  # where colours are equal
        members = np.flatnonzero(nearest == np.bincount(nearest).argmax())
        nearest[members[squared[members].argmax()]] = empty
    return torch.from_numpy(nearest.astype(np.int64))


def palette_quality(palette: Palette, counts: ColorCounts) -> tuple[dict[str, float | int | None], NDArray[np.float64]]:
    """Over all counted pixels: `mse` is the mean squared RGB distance, in 0..255 units, `psnr` in dB over the channels.

    `psnr` is None where nothing was lost. Also returns the share of pixels of each colour, `(k,)`.
    """
    colors = palette.colors.cpu().numpy().astype(np.float64) * 127.5 + 127.5
    error, shares = 0.0, np.zeros(palette.k)
    for rgb, weights in counts.chunks():
        token = palette.nearest(torch.from_numpy(rgb.astype(np.uint8))).numpy()
        error += float(((rgb - colors[token]) ** 2).sum(1) @ weights)
        shares += np.bincount(token, weights, minlength=palette.k) / counts.pixels
    mse = error / counts.pixels
    figures = {
        "pixels": counts.pixels,
        "unique_colors": counts.unique(),
        "mse": mse,
        "psnr": 10 * math.log10(255**2 / (mse / 3)) if mse > 1e-6 else None,
        "unused_colors": int((shares == 0).sum()),
    }
    return figures, shares
