"""The folder that `igpt tokenize` writes: begun or gone on with, filled task by task, and closed by its index."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from igpt.data import NAME, SPLITS, Index, TokenKind, check_shards
from igpt.system import UserError, atomic_path, check_own, remove_own, with_progress
from igpt.tokenization.tasks import UNFINISHED, Job, Record, Task, forget_skips, plan_of, same_plan, tasks_of
from igpt.tokenization.writing import kind_of

REFUSED = "refused"  # file in the unfinished folder: images are to be mended, so what was skipped is read anew
WORK = ("plan.json", ".plan.*.json", REFUSED, f".{REFUSED}.*", "*-[0-9][0-9][0-9][0-9][0-9].*")  # files of that folder


def write_shards(
    job: Job, shard_images: int | None, max_bad_share: float, run: Callable[[list[Task]], Iterator[Record]]
) -> Index | None:
    """Write every shard of a job that is not there yet, then the index.

    Args:
        job: what is written, and where.
        shard_images: images of a shard; None is as many as fit into 8 MiB.
        max_bad_share: of the images, that may be skipped.
        run: does tasks, in any order.

    Returns:
        The index; None where the folder held all of it before.

    Raises:
        UserError: the folder holds something else, or too many images cannot be read.
    """
    folder, plan = Path(job.out), plan_of(job, shard_images)
    if not begin(folder, plan):
        return None
    kind = kind_of(job.palette)  # of a palette builds the table of nearest colours, which all processes then get
    index = index_of(job, plan, kind, completed(job, tasks_of(job, shard_images), max_bad_share, run))
    index.write(folder)
    remove_own(folder / UNFINISHED, WORK)
    return index


def begin(folder: Path, plan: dict[str, Any]) -> bool:
    """Make the folder ready for the plan, or go on with it; False if it holds the finished shards."""
    work = folder / UNFINISHED
    other = UserError(f"--out {folder} holds shards of other data or options; name another folder, or delete this one")
    try:
        if (folder / NAME).exists():
            index = Index.read(folder)
            if not same_plan(index.source, plan):
                raise other
            check_shards(folder, index)
            remove_own(work, WORK)
            return False
        check_own(work, Path.is_dir, WORK)
        if (work / "plan.json").is_file():
            if not same_plan(json.loads((work / "plan.json").read_bytes()), plan):
                raise other
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


def completed(
    job: Job, tasks: list[Task], max_bad_share: float, run: Callable[[list[Task]], Iterator[Record]]
) -> list[Record]:
    """The records of all tasks, in their order; those that a killed run left are not done again."""
    folder = Path(job.out)
    records = {task: record for task in tasks if (record := Record.read(task, folder))}
    if records:
        print(f"going on after {len(records)} of {len(tasks)} shards")
    rest = [task for task in tasks if task not in records]
    allowed = max_bad_share * sum(task.stop - task.start for task in tasks)
    for record in with_progress(run(rest), len(rest), "shards"):
        records[record.task] = record
        skipped = [reason for one in records.values() for _, reason in one.skipped]
        if len(skipped) > allowed:
            look_again(folder)
            raise UserError(
                f"--data: {len(skipped)} images cannot be read, more than --max_bad_share allows; the first: "
                f"{skipped[0]}"
            )
    return [records[task] for task in tasks]


def look_again(folder: Path) -> None:
    """Have the next run read the shards that lack images anew: workers of this one may still write their records."""
    with atomic_path(folder / UNFINISHED / REFUSED) as path:
        path.touch()


def index_of(job: Job, plan: dict[str, Any], kind: TokenKind, records: list[Record]) -> Index:
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
        tokens=kind,
        shards={str(split): found for split, found in shards.items()},
        skipped=(*((str(image), str(reason)) for image, reason in job.data.skipped), *skipped),
        source=plan,
    )
    check_shards(Path(job.out), index)
    return index
