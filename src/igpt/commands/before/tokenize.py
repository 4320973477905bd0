"""`igpt tokenize`: the images of any data module as tokens on disk, for training on any number of them."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Literal

from igpt.data import NAME, SPLITS, ImageDataModule, Index
from igpt.palette import open_tokens
from igpt.system import UserError, only_writer
from igpt.tokenization import Job, check_engine, run_here, run_on_dask, write_shards


def tokenize(
    data: ImageDataModule,
    palette: str,
    out: str,
    variants: int = 0,
    seed: int = 0,
    workers: int | None = None,
    shard_images: int | None = None,
    max_bad_share: float = 0.05,
    engine: Literal["local", "dask"] = "local",
    scheduler: str | None = None,
) -> None:
    """Write the images of any data module as tokens of a palette, to be trained from with the data module TokenShards.

    Writes SPLIT-NUMBER.npy, a shard of labels and uint16 tokens each, and when all are there index.json, with checksums
    of all of them. A run that was killed goes on when the same command is given again, and ends with the same bytes.
    Images that cannot be read are skipped and listed in index.json.

    Args:
        data: whose images, such as WebImages, ImageNet or a plug-in's class; its splits become the shards'.
        palette: .npy file of a palette, or .safetensors file of VQ tokens.
        out: folder to write.
        variants: random variants (crops, as the data module augments) of each training image to keep; with 0, training
            sees every image as evaluation does.
        seed: of the variants.
        workers: processes; as many as there are cores if left out.
        shard_images: images of a shard; as many as give 8 MiB (4,096 of 32x32 pixels) if left out.
        max_bad_share: stop if more than this share of the images cannot be read, since then something else is wrong.
        engine: local, or dask: the workers of a Dask cluster, which must see the images and `out` by the same paths.
        scheduler: of Dask, such as tcp://host:8786.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    if min(variants, seed) < 0 or workers < 1 or (shard_images is not None and shard_images < 1):
        raise UserError("--variants and --seed must be at least 0, --workers and --shard_images at least 1")
    if not 0 <= max_bad_share <= 1:
        raise UserError(f"--max_bad_share {max_bad_share} must lie from 0 to 1")
    check_engine(engine, scheduler)
    tokeniser = open_tokens(palette)
    data.check_pictures()
    if any(side % tokeniser.stride for side in data.shape):
        raise UserError(
            f"--palette {palette}: VQ tokens need sides that are multiples of {tokeniser.stride}, not "
            f"{'x'.join(map(str, data.shape))}; set --data.resolution"
        )
    data.num_workers = data.num_workers or (workers if workers > 1 else 0)  # for looking at the images beforehand
    data.prepare_data()
    if variants and not data.images("train").augments:
        raise UserError(f"--variants {variants}: {type(data).__name__} does not augment its images; leave it out")
    job = Job(data, tokeniser, str(Path(out).absolute()), variants, seed)
    run = (
        partial(run_on_dask, job.sent(), scheduler=scheduler) if scheduler else partial(run_here, job, workers=workers)
    )
    started = time.perf_counter()
    with only_writer(job.out, "name another --out"):
        index = write_shards(job, shard_images, max_bad_share, run)
    seconds = time.perf_counter() - started
    print(summary(index, out, seconds) if index else f"{out} holds these shards already; nothing to do")


def summary(index: Index, out: str, seconds: float) -> str:
    """What was written, in two lines."""
    counts = ", ".join(f"{sum(one.images for one in index.shards[split]):,} {split}" for split in SPLITS)
    skipped = f"; {len(index.skipped)} skipped, listed in {NAME}" if index.skipped else ""
    size = sum(shard.bytes for shard in index.files) / 1e6
    return (
        f"tokens of {counts} images{skipped}\nwrote {out}: {len(index.files)} shards, {size:,.1f} MB, {seconds:.1f} s"
    )
