"""Every image of a pool once through the source: thumbnails and features in blocks on disk."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.curation.blocks import Array, Blocks, let_go, spans
from igpt.curation.pictures import SIDE, coarse, thumbnails
from igpt.curation.pool import Pool
from igpt.families import FeatureSource, checked_features
from igpt.system import Progress, UserError

AT_ONCE = 256  # images that go through the source together
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Embedding:
    """The images of a pool by number; what is asked for is read from the disk."""

    parts: list[Array]  # of `block` images each, mapped
    block: int
    reasons: dict[int, str]  # of those that cannot be read
    digest: str  # of all that is there

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
    pool: Pool, name: str, source: FeatureSource, layer: str, known: list[str], blocks: Blocks, size: int, workers: int
) -> Embedding:
    """Embed all images of a pool, block by block; those on disk are not read again.

    Args:
        name: of the blocks.
        known: plain data that tells the source.
    """
    parts, reasons, checksums = [], dict[int, str](), []
    with Progress(len(pool), f"images: {name}") as progress:
        for number, (start, end) in enumerate(spans(len(pool), size)):

            def make(indices: range = range(start, end)) -> tuple[Array, list[str]]:
                images, why = pool.read(indices, workers)
                return records(images, source, layer), why

            key = [pool.fingerprint(range(start, end)), *known, layer]
            array, why, checksum = blocks.get(f"{name}-{number:05d}", key, make)
            parts.append(array)
            checksums.append(checksum)
            reasons |= {start + place: reason for place, reason in enumerate(why) if reason}
            progress.add(end - start)
    return Embedding(parts, size, reasons, hashlib.sha256("".join(checksums).encode()).hexdigest())


@torch.no_grad()
def records(images: Tensor, source: FeatureSource, layer: str) -> Array:
    """Thumbnails and features, float16, of images uint8 `(B, 3, R, R)`."""
    features = torch.cat([checked_features(source, some, [layer])[0].float().cpu() for some in images.split(AT_ONCE)])
    kept = features.half()
    if not torch.isfinite(kept).all():
        raise UserError(f"--layer {layer}: its features exceed 65,504, what is kept of them; choose another layer")
    kind = np.dtype([("thumb", "u1", (3, SIDE, SIDE)), ("feature", "<f2", (kept.shape[1],))])
    found = np.empty(len(images), kind)
    found["thumb"], found["feature"] = thumbnails(images).numpy(), kept.numpy()
    return found
