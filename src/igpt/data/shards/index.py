"""`index.json`, the table of contents of a folder of shards (format: docs/shards.md)."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igpt.checkpoints import plain
from igpt.data.imagefile import Resolution, shape_of
from igpt.data.shards.kinds import KINDS, TokenKind
from igpt.data.splits import SPLITS
from igpt.system import UserError, atomic_path, digest_of, sha256_of, sync

NAME = "index.json"
SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.npy")
AGAIN = "delete the folder and run 'igpt tokenize' again"


@dataclass(frozen=True)
class Shard:
    """One shard file: N images, each in V views (as evaluation sees it, and then the random variants)."""

    file: str
    images: int
    views: int
    bytes: int
    sha256: str

    def dtype(self, length: int) -> np.dtype[Any]:
        """The file's one record: labels int64 `(N,)`, tokens uint16 `(N, V, T)` in raster order, T the length."""
        shape = (self.images, self.views, length)
        return np.dtype([("labels", "<i8", (self.images,)), ("tokens", "<u2", shape)])


@dataclass(frozen=True)
class Index:
    """What lies in a folder of shards."""

    resolution: Resolution
    num_classes: int  # 0 where there are no labels
    class_names: tuple[str, ...]
    tokens: TokenKind  # what they are of
    shards: dict[str, tuple[Shard, ...]]  # of each split, in the order of its images
    skipped: tuple[tuple[str, str], ...]  # (image, reason) of what could not be read
    source: dict[str, Any]  # what the tokens were made from

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's tokens."""
        rows, columns = shape_of(self.resolution)
        return rows // self.tokens.stride, columns // self.tokens.stride

    @property
    def files(self) -> list[Shard]:
        """The shards of all splits."""
        return [shard for split in SPLITS for shard in self.shards[split]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with a checksum of their own."""
        content: dict[str, Any] = {
            "format": self.tokens.format,
            "resolution": plain(self.resolution),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "images": {split: sum(shard.images for shard in self.shards[split]) for split in SPLITS},
            **self.tokens.to_dict(),
            "shards": {split: [asdict(shard) for shard in self.shards[split]] for split in SPLITS},
            "skipped": [list(one) for one in self.skipped],
            "source": self.source,
        }
        return content | {"sha256": digest(content)}

    def write(self, folder: Path) -> None:
        """Write `index.json`, whole or not at all, also where the power fails."""
        with atomic_path(folder / NAME) as path:
            path.write_bytes(as_text(self.to_dict()).encode())
            sync(path)

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read a folder's `index.json`; no shard is looked at yet.

        Raises:
            UserError: there is none, its format is unknown, it is damaged, or names a file that is no shard.
        """
        path = folder / NAME
        if not os.path.isfile(path):  # a name too long for a file is none, either
            raise UserError(f"{folder} has no {NAME}; name a folder that 'igpt tokenize' has finished")
        try:
            content = json.loads(path.read_bytes())
            kind = next((kind for kind in KINDS if kind.format == content["format"]), None)
            if kind is None:
                known = " or ".join(str(kind.format) for kind in KINDS)
                raise UserError(f"{path} has format {content['format']!r}, not {known}; update igpt, or {AGAIN}")
            index = cls(
                resolution=tuple(size) if isinstance(size := content["resolution"], list) else int(size),
                num_classes=int(content["num_classes"]),
                class_names=tuple(content["class_names"]),
                tokens=kind.read(content),
                shards={split: tuple(Shard(**one) for one in content["shards"][split]) for split in SPLITS},
                skipped=tuple((str(image), str(reason)) for image, reason in content["skipped"]),
                source=content["source"],
            )
            if index.to_dict() != content:
                raise ValueError("numbers or checksum")
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}); mend it, or {AGAIN}") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged; {AGAIN}") from error
        for shard in index.files:
            if not SHARD_NAME.fullmatch(shard.file):
                raise UserError(f"{path} names {shard.file!r}, which is no name of a shard; {AGAIN}")
        return index


def as_text(content: dict[str, Any]) -> str:
    """JSON with a line for each key."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()) + "\n}\n"


def digest(content: dict[str, Any]) -> str:
    """Checksum of an index's content, that of the checksum itself left out."""
    kept = {key: value for key, value in content.items() if key != "sha256"}
    return digest_of(kept)


def check_shards(folder: Path, index: Index, every_byte: bool = False) -> None:
    """Look whether the shards are there and whole: their sizes, which is quick, or every byte.

    Raises:
        UserError: a shard is missing, of another size, a link that leaves the folder, or (every byte) changed.
    """
    home = os.path.realpath(folder)
    for shard in index.files:
        path = folder / shard.file
        if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != home:
            raise UserError(f"{path} is a link that leaves the folder; put the file itself there, or {AGAIN}")
        if not path.is_file():
            raise UserError(f"{path} is missing; copy the folder whole, or {AGAIN}")
        size = path.stat().st_size
        if size != shard.bytes:
            raise UserError(f"{path} has {size} bytes instead of {shard.bytes}; copy it again, or {AGAIN}")
        if every_byte and sha256_of(path) != shard.sha256:
            raise UserError(f"{path} is damaged: its checksum is not the index's; copy it again, or {AGAIN}")
