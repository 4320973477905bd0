"""`igpt curate`: which images of a large set to train on, as a manifest."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from igpt.commands.before.curate_plan import Pools, foretold
from igpt.curation import (
    Blocks,
    Curation,
    CurationOptions,
    Downsampled,
    Embedding,
    Engine,
    Making,
    Pool,
    Task,
    check_name,
    curate_images,
    drawn,
    embedded,
    is_manifest,
    rows,
    write,
)
from igpt.data import ImageDataModule, save_picture, shape_of
from igpt.families import FeatureSource, checked_layers, open_source
from igpt.system import UserError, atomic_path, check_own, digest_of, only_writer
from igpt.tokenization import check_engine, run_here, run_on_dask


def curate(
    data: ImageDataModule,
    out: str,
    reference: ImageDataModule | None = None,
    test: ImageDataModule | None = None,
    keep: float | None = None,
    within: float | None = None,
    source: str | None = None,
    weights: str | None = None,
    layer: str | None = None,
    threshold: float = 0.37,
    candidates: int = 16,
    block: int = 4096,
    workers: int | None = None,
    engine: Literal["local", "dask"] = "local",
    scheduler: str | None = None,
    dry_run: bool = False,
) -> None:
    """Choose the images near a reference set, each picture once and none of the test set (paper, section 3).

    Writes a manifest, one row an image of all splits: kept or not, why, and distances; and a picture of both beside it.
    `WebImages` takes it as --data.manifest. What was embedded is kept in a folder NAME.work beside it: a run that was
    killed goes on when the same command is given again, and ends with the same bytes.

    Args:
        data: whose images to choose from, such as WebImages or a plug-in's class.
        out: manifest to write: .json, .jsonl or .csv.
        reference: data whose training and validation images are to be resembled; its test images are dropped from
            `data`. Left out, nothing is too far.
        test: more data whose test images are dropped from `data`, resized, recompressed or cropped ones, too.
        keep: share of what is no duplicate to keep, the nearest; 0.5 if left out.
        within: in place of `keep`, the largest distance: root mean square over features, in deviations of the
            reference.
        source: of the features for the distance: a checkpoint, a run or a plug-in; 8x8 pixels if left out.
        weights: of the source, a state dict's file.
        layer: of the source, its name or number; the middle one if left out.
        threshold: unlike share of two aligned pictures up to which they are one; larger finds more, and errs more.
        candidates: nearest images that are compared with each.
        block: images that are embedded, and written, at a time.
        workers: processes; as many as there are cores if left out.
        engine: local, or dask: the workers of a Dask cluster, which must see the images and `out` by the same paths.
        scheduler: of Dask, such as tcp://host:8786.
        dry_run: print disk, memory and hours that it will take, by a sample timed on this machine, and write nothing.
    """
    options = CurationOptions(keep, within, threshold, candidates, block)
    check_options(options, reference, source, weights, layer)
    check_engine(engine, scheduler)
    most = processes(workers)
    target, started = Path(out), time.perf_counter()
    picture, work = target.with_suffix(".png"), target.with_name(f"{target.stem}.work")
    check_target(target, picture, work)
    how = Source.opened(source, weights, layer)
    check_sizes(data, {"reference": reference, "test": test})
    how.check(data.shape)
    if dry_run:
        print(foretold(pools_of(data, reference, test), partial(decided, how, options), max(1, most)), end="")
        return
    with only_writer(target, "give another --out"):
        pools, blocks = pools_of(data, reference, test), Blocks(work.absolute())
        images, found = decided(how, options, pools, blocks, block, engine_of(most, scheduler))
        with atomic_path(target) as path, atomic_path(picture) as shown:  # both, or none
            write(rows(found, pools.data, images.reasons, pools.reference, pools.tests), path)
            save_picture(drawn(found, pools.data, pools.tests), shown)
    print(summary(found, reference is not None))
    print(f"wrote {target}, {picture.name} in {time.perf_counter() - started:.1f} s; {work} may be removed")


def pools_of(data: ImageDataModule, reference: ImageDataModule | None, test: ImageDataModule | None) -> Pools:
    """The images of all splits, those that are to be resembled, and those that are tested on."""
    pool = Pool(data)
    near = Pool(reference, ("train", "val")) if reference is not None else None
    tests = [Pool(one, ("test",)) for one in (reference, test) if one is not None]
    return Pools(pool, near, Pool.joined(tests) if tests else None)


def decided(
    how: "Source", options: CurationOptions, pools: Pools, blocks: Blocks, size: int, run: Engine
) -> tuple[Embedding, Curation]:
    """Embed all images, so many in a block, and decide about each."""
    images, near, tests = (
        embedded(pool, name, how.source, how.layer, how.known, blocks, size, run) if pool is not None else None
        for pool, name in ((pools.data, "data"), (pools.reference, "reference"), (pools.tests, "test"))
    )
    assert images is not None
    return images, curate_images(images, near, tests, options, blocks, run)


def processes(workers: int | None) -> int:
    """How many processes are meant."""
    if workers is not None and workers < 0:
        raise UserError(f"--workers {workers} must be at least 0")
    return workers if workers is not None else os.cpu_count() or 1


def engine_of(most: int, scheduler: str | None) -> Engine:
    """What makes blocks: a cluster, or processes of this machine, but no more than there are blocks."""
    if scheduler is not None:
        return partial(run_on_dask, scheduler=scheduler)

    def here(work: Making, tasks: Sequence[Task]) -> Iterator[int]:
        return run_here(work, tasks, max(1, min(most, len(tasks))))

    return here


def check_target(target: Path, picture: Path, work: Path) -> None:
    """Raise a UserError unless these can be written over nothing of somebody else's."""
    check_name(target)
    check_own(target, is_manifest)
    check_own(picture, lambda file: target.exists())
    check_own(work, lambda folder: True, ("*.npy", "*.json", ".*"))


def check_sizes(data: ImageDataModule, others: dict[str, ImageDataModule | None]) -> None:
    """Raise a UserError for images of another size than the data's, by the option that named them."""
    for name, one in others.items():
        if one is not None and one.shape != data.shape:
            sides = " and ".join("x".join(map(str, each)) for each in (one.shape, data.shape))
            raise UserError(f"--{name}: images of {sides} cannot be compared; set --{name}.resolution")


@dataclass(frozen=True)
class Source:
    """A source of features, one of its layers, and what tells it from others."""

    source: FeatureSource
    layer: str
    known: list[str]

    @classmethod
    def opened(cls, name: str | None, weights: str | None, layer: str | None) -> "Source":
        """The source of a name, or pixels; a UserError where it or the layer is not there."""
        if name is None:
            return cls(Downsampled(), "pixels", ["pixels"])
        source = open_source(name, **({} if weights is None else {"weights": weights}))
        names = checked_layers(source)
        if layer is not None and layer not in names and layer.isdecimal() and int(layer) < len(names):
            layer = names[int(layer)]
        layer = names[len(names) // 2] if layer is None else layer
        if layer not in names:
            raise UserError(f"--layer {layer} is none of {', '.join(names)}, nor their number from 0")
        tensors = digest_of({key: value.sum().item() for key, value in source.state_dict().items()})
        return cls(source.eval(), layer, [digest_of(source.spec()), tensors])

    def check(self, shape: tuple[int, int]) -> None:
        """Raise a UserError unless the source takes images of so many rows and columns."""
        known = self.source.resolution
        if known is not None and shape_of(known) != shape:
            sides, given = ("x".join(map(str, each)) for each in (shape_of(known), shape))
            raise UserError(f"--data: the images are {given}, but --source takes {sides}; set --data.resolution")


def check_options(
    options: CurationOptions,
    reference: ImageDataModule | None,
    source: str | None,
    weights: str | None,
    layer: str | None,
) -> None:
    """Raise a UserError for an option without what it is about."""
    for name, value in (("keep", options.keep), ("within", options.within), ("source", source)):
        if value is not None and reference is None:
            raise UserError(f"--{name} {value} is about the distance to a --reference; give one, or leave it out")
    for name, text in (("weights", weights), ("layer", layer)):
        if text is not None and source is None:
            raise UserError(f"--{name} {text} is of a --source; give one, or leave it out")


def summary(found: Curation, near: bool) -> str:
    """How many were kept, and the others by reason, in one line."""
    counts = found.counts()
    kept, total = counts.pop("kept"), len(found.state)
    dropped = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"
    farthest = f" at distances up to {found.distance[found.state == 0].max():.4g}" if near and kept else ""
    return f"kept {kept:,} of {total:,} images{farthest}; dropped: {dropped}"
