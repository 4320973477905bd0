"""The work behind `igpt tokenize`: independent tasks, each of which encodes a range of images into one shard.

A task's output is a function of the data, the palette and the seed alone: whoever runs it, however often, writes the
same bytes, and a killed run goes on with the tasks that have no record yet.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.data import (
    SPLITS,
    ImageDataModule,
    LabelledImages,
    Shard,
    Split,
    evenly_spaced,
    label_bytes,
    pixel_sha256,
    rng_of,
)
from igpt.palette import Palette, VQTokens
from igpt.system import UserError, atomic_path
from igpt.tokenization.writing import write_shard

UNFINISHED = ".unfinished"  # folder inside the output, for the plan, the records, and files that are not whole
AT_ONCE = 256  # images that are encoded together
SHARD_BYTES = 1 << 23  # of tokens; a worker holds a few copies of one shard in memory


@dataclass(frozen=True)
class Task:
    """One shard: the images `start` to `stop` of a split."""

    split: Split
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The shard's file."""
        return f"{self.split}-{self.number:05d}.npy"


@dataclass(frozen=True)
class Record:
    """What came of a task: its shard (None if no image could be read), and (index, reason) of what was skipped."""

    task: Task
    shard: Shard | None
    skipped: tuple[tuple[int, str], ...]

    def write(self, folder: Path) -> None:
        """Write the record, whole or not at all."""
        with atomic_path(folder / f"{self.task.name}.json") as path:
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, task: Task, out: Path) -> "Record | None":
        """The record of a task that was done before and whose shard is there in its full size, else None."""
        try:
            content = json.loads((out / UNFINISHED / f"{task.name}.json").read_bytes())
            shard = Shard(**content["shard"]) if content["shard"] else None
            same = content["task"] == asdict(task)
            skipped = tuple((int(index), str(reason)) for index, reason in content["skipped"])
            whole = shard is None or (shard.file == task.name and (out / task.name).stat().st_size == shard.bytes)
            counted = (shard.images if shard else 0) + len(skipped) == task.stop - task.start
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return cls(task, shard, skipped) if same and whole and counted else None


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    data: ImageDataModule
    palette: Palette | VQTokens
    out: str  # folder of the shards, which every worker must see
    variants: int  # random variants of each image of an augmenting split, besides how evaluation sees it
    seed: int  # of the variants

    def sent(self) -> "Job":
        """The same to be pickled: its palette without the table of nearest colours, which takes 32 MiB."""
        return replace(self, palette=Palette(self.palette.colors)) if isinstance(self.palette, Palette) else self

    @property
    def length(self) -> int:
        """T, the tokens of an image."""
        return math.prod(self.data.shape) // self.palette.stride**2

    def views(self, images: LabelledImages) -> int:
        """How many arrays of tokens each image of a split gets."""
        return 1 + self.variants if images.augments else 1

    def run(self, task: Task) -> Record:
        """Read, encode and write one shard, and its record.

        Raises:
            UserError: the shard cannot be written.
        """
        out, shard = Path(self.out), None
        labels, tokens, skipped = self._tokens(self.data.images(task.split), task)
        if len(labels):
            shard = write_shard(out / task.name, labels, tokens, out / UNFINISHED)
        record = Record(task, shard, tuple(skipped))
        record.write(out / UNFINISHED)
        return record

    def _tokens(
        self, images: LabelledImages, task: Task
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16], list[tuple[int, str]]]:
        """Labels `(N,)` and tokens `(N, V, T)` of the images that can be read; (index, reason) of the others."""
        tokens = np.empty((task.stop - task.start, self.views(images), self.length), dtype=np.uint16)
        labels: list[int] = []
        views: list[Tensor] = []
        skipped: list[tuple[int, str]] = []
        for index in range(task.start, task.stop):
            try:
                image, label = self._views(images, index)
            except (UserError, OSError) as error:
                skipped.append((index, " ".join(str(error).split())))
            else:
                views.append(image)
                labels.append(label)
            if views and (len(views) == AT_ONCE or index == task.stop - 1):
                tokens[len(labels) - len(views) : len(labels)] = self._encode(views)
                views = []
        return np.array(labels, dtype=np.int64), tokens[: len(labels)], skipped

    def _views(self, images: LabelledImages, index: int) -> tuple[Tensor, int]:
        """One image as evaluation sees it and its random variants, uint8 `(V, 3, R, R)`, and its label."""
        image, label = images[index]
        drawn = range(self.views(images) - 1)
        more = [images.draw(index, rng_of(self.seed, variant, index))[0] for variant in drawn]
        return torch.stack([image, *more]), int(label)

    def _encode(self, views: list[Tensor]) -> NDArray[np.uint16]:
        """Tokens `(B, V, T)` of B images' views."""
        tokens = self.palette.encode(torch.cat(views)).numpy()
        return tokens.reshape(len(views), -1, tokens.shape[1]).astype(np.uint16)


def tasks_of(job: Job, shard_images: int | None) -> list[Task]:
    """Every split cut into shards of so many images; None is as many as fit into 8 MiB."""
    tasks = []
    for split in SPLITS:
        images = job.data.images(split)
        fitting = SHARD_BYTES // (2 * job.views(images) * job.length)
        size = shard_images or max(1, fitting)
        for number, start in enumerate(range(0, len(images), size)):
            tasks.append(Task(split, number, start, min(start + size, len(images))))
    return tasks


def plan_of(job: Job, shard_images: int | None) -> dict[str, Any]:
    """Everything that the shards' bytes depend on, as plain data; how quickly they are made plays no part."""
    data = job.data.spec()
    ignored = {"num_workers", "batch_size"}
    data["init_args"] = {name: value for name, value in data["init_args"].items() if name not in ignored}
    return {
        "data": data,
        "labels": {split: hashlib.sha256(label_bytes(job.data.images(split))).hexdigest() for split in SPLITS},
        "images": {f"{split} {at}": sha for split in SPLITS for at, sha in some_images(job.data.images(split))},
        "palette_sha256": job.palette.sha256,
        "variants": job.variants,
        "seed": job.seed,
        "shard_images": shard_images,
    }


def some_images(images: LabelledImages) -> Iterator[tuple[int, str]]:
    """Index and checksum of some of a split's images; those that cannot be read are left out: they may be mended."""
    for index in evenly_spaced(len(images)):
        with suppress(UserError, OSError):
            yield index, pixel_sha256(images[index][0])


def same_plan(held: Any, plan: dict[str, Any]) -> bool:
    """Whether shards of the plan `held` are those of this plan; an image that one of them lacks is no difference."""
    if not isinstance(held, dict) or not isinstance(held.get("images"), dict):
        return False
    known = held["images"]
    if any(known.get(name, sha) != sha for name, sha in plan["images"].items()):
        return False
    return held | {"images": {}} == plan | {"images": {}}


def forget_skips(work: Path) -> None:
    """Remove the records of shards that lack images, so that these are read anew."""
    for path in work.glob("*.npy.json"):
        try:
            whole = json.loads(path.read_bytes())["skipped"] == []
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            path.unlink()
