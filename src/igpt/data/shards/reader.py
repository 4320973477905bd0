"""Reading shards: memory-mapped files, opened when first needed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from igpt.data.contract import check_labels
from igpt.data.shards.index import AGAIN, Index, Shard
from igpt.system import UserError

Mapped = tuple[NDArray[np.int64], NDArray[np.uint16]]
Images = NDArray[np.uint8] | NDArray[np.int16]


class ShardReader:
    """The images of some splits, one after another: their tokens, or what a data module gives of these."""

    def __init__(self, folder: Path, index: Index, splits: tuple[str, ...]) -> None:
        self.folder, self.tokens, self.num_classes, self.grid = folder, index.tokens, index.num_classes, index.grid
        self.shards: list[Shard] = [shard for split in splits for shard in index.shards[split]]
        self._starts = np.cumsum([0, *(shard.images for shard in self.shards)], dtype=np.int64)
        self._open: dict[int, Mapped] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # another process opens the files for itself

    @property
    def views(self) -> int:
        """The most views that any image has."""
        return max((shard.views for shard in self.shards), default=1)

    def views_of(self, index: int) -> int:
        """How many views one image has."""
        return self.shards[int(self._numbers(np.array([index]))[0])].views

    def all_labels(self) -> NDArray[np.int64]:
        """Labels of all images, int64 `(N,)`."""
        return np.concatenate([self._mapped(number)[0] for number in range(len(self.shards))])

    def read(self, indices: list[int], view: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Tokens uint16 `(B, T)` in raster order and labels int64 `(B,)` of some images in one view."""
        wanted = np.array(indices, dtype=np.int64)
        tokens = np.empty((len(wanted), math.prod(self.grid)), dtype=np.uint16)
        labels = np.empty(len(wanted), dtype=np.int64)
        numbers = self._numbers(wanted)
        for number in np.unique(numbers).tolist():
            known, stored = self._mapped(number)
            here = np.flatnonzero(numbers == number)
            places = wanted[here] - self._starts[number]
            tokens[here], labels[here] = stored[places, view], known[places]
        return tokens, labels

    def images(self, indices: list[int], view: int = 0) -> tuple[Images, NDArray[np.int64]]:
        """Images uint8 `(B, 3, R, R)`, each pixel the colour that stands for its token, and labels int64 `(B,)`.

        Of VQ tokens the grids of tokens themselves, int16 `(B, 1, R / 4, R / 4)`.

        Raises:
            UserError: a shard is damaged.
        """
        tokens, labels = self.read(indices, view)
        try:
            images: Images = self.tokens.images(tokens)
        except IndexError as error:
            raise self._damaged(indices, tokens) from error
        return images.reshape(*images.shape[:2], *self.grid), labels

    def _numbers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The shards of some images."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"images {indices.min()} to {indices.max()} of {len(self)}")
        return self._starts.searchsorted(indices, side="right") - 1

    def _mapped(self, number: int) -> Mapped:
        if number not in self._open:
            shard = self.shards[number]
            path = self.folder / shard.file
            try:
                record = open_memmap(path, mode="r")
                right = record.dtype == shard.dtype(math.prod(self.grid)) and record.shape == (1,)
            except Exception as error:  # on foreign bytes NumPy raises anything, from EOFError to TokenError
                raise UserError(f"{path} cannot be read ({error}); {AGAIN}") from error
            if not right:
                raise UserError(f"{path} does not hold what the index says; {AGAIN}")
            try:
                check_labels(record["labels"][0], self.num_classes)
            except UserError as error:
                raise UserError(f"{path} is damaged: {error}; {AGAIN}") from error
            plain = record.view(np.ndarray)  # a memmap checks itself at every indexing, which costs more than reading
            self._open[number] = plain["labels"][0], plain["tokens"][0]
        return self._open[number]

    def _damaged(self, indices: list[int], tokens: NDArray[np.uint16]) -> UserError:
        row = int(np.flatnonzero((tokens >= self.tokens.k).any(1))[0])
        file = self.folder / self.shards[self._numbers(np.array(indices))[row]].file
        return UserError(f"{file} is damaged: image {indices[row]} has tokens beyond the palette's; {AGAIN}")
