"""Every image of a pool once through the source: thumbnails and features in blocks on disk."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.curation.blocks import Array, Blocks, let_go, load
from igpt.curation.pictures import SIDE, coarse, thumbnails
from igpt.curation.pool import Pool
from igpt.curation.tasks import Engine, Ints, done, tasks_of
from igpt.families import FeatureSource, checked_features
from igpt.system import UserError

AT_ONCE = 256  # images that go through the source together


@dataclass(frozen=True)
class Embedding:
    """The images of a pool by number; what is asked for is read from the disk. Files' names alone are pickled."""

    files: list[str]  # of `block` images each
    block: int
    reasons: dict[int, str]  # of those that cannot be read
    digest: str  # of all that is there

    @cached_property
    def parts(self) -> list[Array]:
        """All blocks, mapped."""
        return [load(Path(file)) for file in self.files]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "parts"}

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def thumbs(self, rows: Ints) -> Tensor:
        """Thumbnails uint8 `(n, 3, 16, 16)` of these numbers `(n,)`."""
        return torch.from_numpy(self._take("thumb", rows))

    def coarse(self, rows: Ints) -> NDArray[np.float32]:
        """What near-duplicates are looked for by, `(n, 192)`."""
        found: NDArray[np.float32] = coarse(self.thumbs(rows)).numpy()
        return found

    def features(self, rows: Ints) -> NDArray[np.float32]:
        """Features of the source, `(n, D)`."""
        return self._take("feature", rows).astype(np.float32)

    def digests(self) -> NDArray[np.uint64]:
        """64 bits of each thumbnail, `(N,)`: equal for equal ones."""
        found = bytearray()
        for part in self.parts:
            for one in part["thumb"]:
                found += hashlib.blake2b(one.tobytes(), digest_size=8).digest()
            let_go(part)
        return np.frombuffer(found, dtype="<u8")

    def _take(self, field: str, rows: Ints) -> Array:
        taken = np.empty((len(rows), *self.parts[0].dtype[field].shape), self.parts[0].dtype[field].base)
        order = np.argsort(rows, kind="stable")  # each part is gone through once, however many there are
        ends = np.searchsorted(rows[order], np.arange(len(self.parts) + 1) * self.block)
        for place in np.flatnonzero(np.diff(ends)).tolist():
            mine = order[ends[place] : ends[place + 1]]
            taken[mine] = self.parts[place][field][rows[mine] - place * self.block]
            let_go(self.parts[place])
        return taken


def embedded(
    pool: Pool, name: str, source: FeatureSource, layer: str, known: list[str], blocks: Blocks, size: int, run: Engine
) -> Embedding:
    """Embed all images of a pool, block by block; those on disk are not read again.

    Args:
        name: of the blocks.
        known: plain data that tells the source.
        run: does the blocks that are not there.
    """
    tasks = tasks_of(name, np.arange(len(pool)), size, lambda rows: [pool.fingerprint(rows.tolist()), *known, layer])
    found = done(tasks, lambda: Embedder(pool, source, layer).records, blocks, run, name)
    whole = hashlib.sha256("".join(checksum for _, _, checksum in found).encode()).hexdigest()
    notes = enumerate(reason for _, why, _ in found for reason in why)
    files = [str(blocks.folder / f"{task.name}.npy") for task in tasks]
    return Embedding(files, size, {index: reason for index, reason in notes if reason}, whole)


@dataclass(frozen=True)
class Embedder:
    """Reads images of a pool, and embeds them."""

    pool: Pool
    source: FeatureSource
    layer: str

    def records(self, rows: Ints) -> tuple[Array, list[str]]:
        """Thumbnails and features of some images, and why each cannot be read, or an empty string."""
        parts, reasons = [], list[str]()
        for start in range(0, len(rows), AT_ONCE):
            images, why = self.pool.read(rows[start : start + AT_ONCE].tolist())
            parts.append(records(images, self.source, self.layer))
            reasons += why
        return np.concatenate(parts), reasons


@torch.no_grad()
def records(images: Tensor, source: FeatureSource, layer: str) -> Array:
    """Thumbnails and features, float16, of a few images uint8 `(B, 3, R, R)`."""
    kept = checked_features(source, images, [layer])[0].float().cpu().half()
    if not torch.isfinite(kept).all():
        raise UserError(f"--layer {layer}: its features exceed 65,504, what is kept of them; choose another layer")
    kind = np.dtype([("thumb", "u1", (3, SIDE, SIDE)), ("feature", "<f2", (kept.shape[1],))])
    found = np.empty(len(images), kind)
    found["thumb"], found["feature"] = thumbnails(images).numpy(), kept.numpy()
    return found
