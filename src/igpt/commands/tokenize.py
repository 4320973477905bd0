"""`igpt tokenize`: the images of any data module as palette tokens on disk, for training on any number of them."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igpt.data import NAME, SPLITS, ImageDataModule, Index, check_shards
from igpt.palette import Palette
from igpt.system import UserError, atomic_path, check_own, only_writer, remove_own
from igpt.tokenization import (
    UNFINISHED,
    Job,
    Record,
    Task,
    forget_skips,
    plan_of,
    run_here,
    run_on_dask,
    same_plan,
    stand_ins,
    tasks_of,
)

Engine = Literal["local", "dask"]
TOLD_EVERY = 10  # seconds between two lines about the progress
REFUSED = "refused"  # file in the unfinished folder: images are to be mended, so what was skipped is read anew
WORK = ("plan.json", ".plan.*.json", REFUSED, f".{REFUSED}.*", "*-[0-9][0-9][0-9][0-9][0-9].*")  # files of that folder


def tokenize(
    data: ImageDataModule,
    palette: str,
    out: str,
    variants: int = 0,
    seed: int = 0,
    workers: int | None = None,
    shard_images: int | None = None,
    max_bad_share: float = 0.05,
    engine: Engine = "local",
    scheduler: str | None = None,
) -> None:
    """Write the images of any data module as palette tokens, to be trained from with the data module TokenShards.

    Writes SPLIT-NUMBER.npy, a shard of labels and uint16 tokens each, and when all are there index.json, with checksums
    of all of them. A run that was killed goes on when the same command is given again, and ends with the same bytes.
    Images that cannot be read are skipped and listed in index.json.

    Args:
        data: whose images, such as WebImages, ImageNet or a plug-in's class; its splits become the shards'.
        palette: .npy file of the palette.
        out: folder to write.
        variants: random variants (crops, as the data module augments) of each training image to keep; with 0, training
            sees every image as evaluation does.
        seed: of the variants.
        workers: processes; as many as there are cores if left out.
        shard_images: images of a shard; as many as give 8 MiB (4,096 of 32x32 pixels) if left out.
        max_bad_share: stop if more than this share of the images cannot be read, since then something else is wrong.
        engine: local, or dask: the workers of a Dask cluster, which must see the images and `out` by the same paths.
        scheduler: of Dask, such as tcp://host:8786.

    Raises:
        UserError: an option is out of range, the data or the palette are missing, `out` holds something else, too many
            images are bad, or a worker was killed.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    check_options(variants, seed, workers, shard_images, max_bad_share, engine, scheduler)
    colors = Palette.load(palette)
    folder = Path(out).absolute()
    data.num_workers = data.num_workers or (workers if workers > 1 else 0)  # for looking at the images beforehand
    data.prepare_data()
    job = Job(data, colors, str(folder), variants, seed)
    check_variants(job)
    plan = plan_of(job, shard_images)
    started = time.perf_counter()
    with only_writer(folder, "name another --out"):
        if not begin(folder, plan):
            print(f"{out} holds these shards already; nothing to do")
            return
        shown = stand_ins(colors)  # builds the table of nearest colours, which all processes then get
        records = completed(job, tasks_of(job, shard_images), max_bad_share, workers, scheduler)
        index = index_of(job, plan, shown, records)
        finish(folder, index)
    print(summary(index, out, time.perf_counter() - started))


def check_options(
    variants: int,
    seed: int,
    workers: int,
    shard_images: int | None,
    max_bad_share: float,
    engine: Engine,
    scheduler: str | None,
) -> None:
    """Raise a UserError for numbers out of range, and for an engine without its scheduler."""
    if min(variants, seed) < 0 or workers < 1 or (shard_images is not None and shard_images < 1):
        raise UserError("--variants and --seed must be at least 0, --workers and --shard_images at least 1")
    if not 0 <= max_bad_share <= 1:
        raise UserError(f"--max_bad_share {max_bad_share} must lie from 0 to 1")
    if engine == "dask" and scheduler is None:
        raise UserError("--engine dask needs the address of its scheduler: --scheduler tcp://HOST:8786")
    if engine == "local" and scheduler is not None:
        raise UserError(f"--scheduler {scheduler} is for --engine dask; give both or neither")


def check_variants(job: Job) -> None:
    """Raise a UserError for variants of images that do not vary."""
    if job.variants and not job.data.images("train").augments:
        raise UserError(
            f"--variants {job.variants}: {type(job.data).__name__} does not augment its images; leave it out"
        )


def begin(folder: Path, plan: dict[str, Any]) -> bool:
    """Make the folder ready for the plan, or go on with it; False if it holds the finished shards.

    Raises:
        UserError: the folder holds something else, or cannot be written to.
    """
    work = folder / UNFINISHED
    other = f"--out {folder} holds shards of other data or options; name another folder, or delete this one"
    try:
        if (folder / NAME).exists():
            index = Index.read(folder)
            if not same_plan(index.source, plan):
                raise UserError(other)
            check_shards(folder, index)
            remove_own(work, WORK)
            return False
        check_own(work, Path.is_dir, WORK)
        if (work / "plan.json").is_file():
            if not same_plan(json.loads((work / "plan.json").read_bytes()), plan):
                raise UserError(other)
            if (work / REFUSED).exists():
                forget_skips(work)
                (work / REFUSED).unlink()
            return True
        if folder.exists() and any(one.name != UNFINISHED for one in folder.iterdir()):
            raise UserError(f"--out {folder} holds other files; name a new folder")
        work.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--out {folder}: {getattr(error, 'strerror', None) or error}; name another folder") from error
    with atomic_path(work / "plan.json") as path:
        path.write_text(json.dumps(plan), encoding="utf-8")
    return True


def completed(job: Job, tasks: list[Task], max_bad_share: float, workers: int, scheduler: str | None) -> list[Record]:
    """The records of all tasks, in their order; those that a killed run left are not done again.

    Raises:
        UserError: too many images are bad, or see `run_here` and `run_on_dask`.
    """
    folder = Path(job.out)
    records = {task: record for task in tasks if (record := Record.read(task, folder))}
    if records:
        print(f"going on after {len(records)} of {len(tasks)} shards")
    rest = [task for task in tasks if task not in records]
    allowed = max_bad_share * sum(task.stop - task.start for task in tasks)
    found = run_on_dask(job, rest, scheduler) if scheduler else run_here(job, rest, workers)
    for record in told(found, len(rest)):
        records[record.task] = record
        check_bad(list(records.values()), allowed, folder)
    return [records[task] for task in tasks]


def told(records: Iterator[Record], count: int) -> Iterator[Record]:
    """The same records, with a line about the progress now and then."""
    since = time.monotonic()
    for number, record in enumerate(records, 1):
        yield record
        if time.monotonic() - since > TOLD_EVERY and number < count:
            since = time.monotonic()
            print(f"{number} of {count} shards", flush=True)


def check_bad(records: list[Record], allowed: float, folder: Path) -> None:
    """Stop where too many images cannot be read; the next run reads them anew.

    Raises:
        UserError: says how many, and why the first cannot.
    """
    skipped = [reason for record in records for _, reason in record.skipped]
    if len(skipped) <= allowed:
        return
    look_again(folder)
    raise UserError(
        f"--data: {len(skipped)} images cannot be read, more than --max_bad_share allows; the first: {skipped[0]}"
    )


def look_again(folder: Path) -> None:
    """Have the next run read the shards that lack images anew: workers of this one may still write their records."""
    with atomic_path(folder / UNFINISHED / REFUSED) as path:
        path.touch()


def index_of(job: Job, plan: dict[str, Any], shown: NDArray[np.uint8], records: list[Record]) -> Index:
    """The table of contents of all records, in the order of the tasks.

    Raises:
        UserError: no image of a split could be read, or a worker wrote where this process does not see it.
    """
    shards = {split: tuple(one.shard for one in records if one.task.split == split and one.shard) for split in SPLITS}
    for split in SPLITS:
        if not shards[split]:
            look_again(Path(job.out))
            raise UserError(f"--data: no image of the {split} split can be read; mend the images, or the split")
    skipped = [(f"{one.task.split} {index}", reason) for one in records for index, reason in one.skipped]
    index = Index(
        resolution=job.data.resolution,
        num_classes=job.data.num_classes,
        class_names=tuple(job.data.class_names),
        colors=job.palette.colors.numpy(),
        shown=shown,
        shards={str(split): found for split, found in shards.items()},
        skipped=(*((str(image), str(reason)) for image, reason in job.data.skipped), *skipped),
        source=plan,
    )
    check_shards(Path(job.out), index)
    return index


def finish(folder: Path, index: Index) -> None:
    """Write the index, and remove what a killed run would have gone on from."""
    index.write(folder)
    remove_own(folder / UNFINISHED, WORK)


def summary(index: Index, out: str, seconds: float) -> str:
    """What was written, in two lines."""
    counts = ", ".join(f"{sum(one.images for one in index.shards[split]):,} {split}" for split in SPLITS)
    skipped = f"; {len(index.skipped)} skipped, listed in {NAME}" if index.skipped else ""
    files = [shard for split in SPLITS for shard in index.shards[split]]
    size = sum(shard.bytes for shard in files)
    return (
        f"tokens of {counts} images{skipped}\nwrote {out}: {len(files)} shards, {size / 1e6:,.1f} MB, {seconds:.1f} s"
    )
