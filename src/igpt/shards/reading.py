"""Reading token shards: memory-mapped files, opened when first needed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from igpt.contract import check_labels
from igpt.errors import UserError
from igpt.shards.index import AGAIN, Index, Shard

Mapped = tuple[NDArray[np.int64], NDArray[np.uint16]]


class ShardReader:
    """The images of some splits, one after another, as tokens or as the colours that stand for them.

    Nothing is held in memory but what the operating system keeps of the files.

    Args:
        folder: of the shards.
        index: its table of contents.
        splits: whose images.
    """

    def __init__(self, folder: Path, index: Index, splits: tuple[str, ...]) -> None:
        self.folder, self.resolution, self.num_classes = folder, index.resolution, index.num_classes
        self.shards: list[Shard] = [shard for split in splits for shard in index.shards[split]]
        self._ends = np.cumsum([shard.images for shard in self.shards], dtype=np.int64)
        self._planes = np.ascontiguousarray(index.shown.T)
        self._open: dict[int, Mapped] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # another process opens the files for itself

    @property
    def views(self) -> int:
        """The most views that any image has."""
        return max((shard.views for shard in self.shards), default=1)

    def views_of(self, index: int) -> int:
        """How many views one image has."""
        return self.shards[self._place(index)[0]].views

    def all_labels(self) -> NDArray[np.int64]:
        """Labels of all images, int64 `(N,)`."""
        return np.concatenate([self._mapped(number)[0] for number in range(len(self.shards))])

    def read(self, indices: list[int], view: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Tokens uint16 `(B, T)` in raster order and labels int64 `(B,)` of some images in one view."""
        tokens = np.empty((len(indices), self.resolution**2), dtype=np.uint16)
        labels = np.empty(len(indices), dtype=np.int64)
        for row, index in enumerate(indices):
            number, place = self._place(index)
            known, stored = self._mapped(number)
            tokens[row], labels[row] = stored[place, view], known[place]
        return tokens, labels

    def images(self, indices: list[int], view: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images uint8 `(B, 3, R, R)`, each pixel the colour that stands for its token, and labels int64 `(B,)`.

        Raises:
            UserError: a shard is damaged.
        """
        tokens, labels = self.read(indices, view)
        pixels = np.empty((len(indices), 3, self.resolution**2), dtype=np.uint8)
        try:
            for channel, plane in enumerate(self._planes):
                pixels[:, channel] = plane[tokens]
        except IndexError as error:
            raise self._damaged(indices, tokens) from error
        return pixels.reshape(len(indices), 3, self.resolution, self.resolution), labels

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of an image, and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number = int(self._ends.searchsorted(index, side="right"))
        return number, index - int(self._ends[number]) + self.shards[number].images

    def _mapped(self, number: int) -> Mapped:
        if number not in self._open:
            shard = self.shards[number]
            path = self.folder / shard.file
            try:
                record = open_memmap(path, mode="r")
                right = record.dtype == shard.dtype(self.resolution) and record.shape == (1,)
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
        row = int(np.flatnonzero((tokens >= self._planes.shape[1]).any(1))[0])
        file = self.folder / self.shards[self._place(indices[row])[0]].file
        return UserError(f"{file} is damaged: image {indices[row]} has tokens beyond the palette's; {AGAIN}")
