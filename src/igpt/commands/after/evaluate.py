"""`igpt evaluate`: how good samples are, and whether they are copies of training images."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.data import ImageDataModule, LabelledImages, enlarge, grid, rng_of, save_picture
from igpt.evaluation import Figures, Judge, Space, blurred, nearest, noise, open_space, read_pictures, shuffled, table
from igpt.families import LoadedSource, open_checkpoint
from igpt.model import SamplingOptions
from igpt.modules import Loaded
from igpt.parsing import command_line
from igpt.system import UserError, atomic_path, only_writer

MOST = 2000  # samples drawn where --num does not say
AT_ONCE = 100
SHOWN = 16  # samples in the picture
NEIGHBOURS = 3
RED = (220, 30, 30)


def evaluate(
    ckpt: str | None = None,
    samples: str | None = None,
    data: ImageDataModule | None = None,
    source: str | None = None,
    weights: str | None = None,
    layer: str | None = None,
    num: int | None = None,
    reference: int = 10_000,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Judge samples by their features beside those of training images, and look for copies.

    Prints Frechet and kernel distance, precision, recall, density, coverage and the share of near-copies, of samples
    and of sets whose quality is known. Writes evaluate.json, and nearest.png: samples beside their nearest
    training images.

    Args:
        ckpt: checkpoint or run whose samples are judged, of any family that draws.
        samples: folder of pictures of any other model instead.
        data: whose images to compare with; those that the checkpoint was trained on if left out.
        source: whose features to compare: a run, a checkpoint, a plug-in or torchvision:NAME; of an encoder that had
            no part in the samples.
        weights: of the source, a state dict's file.
        layer: of the source, by name or number; the last if left out.
        num: samples to draw; as many as there are test images, at most 2,000, if left out.
        reference: training images to compare with at most, evenly spaced; copies are looked for among these.
        seed: of the samples, the noise and the subsets.
        out: folder to write to; "evaluate" in the run's folder, or FOLDER_evaluate, if left out.

    Raises:
        UserError: the model draws nothing, the folder has no pictures of this size, or a source does not fit.
    """
    check(ckpt, samples, source, num, reference)
    assert source is not None
    started = time.perf_counter()
    subject = open_checkpoint(ckpt) if ckpt else None
    if subject is not None:
        check_draws(subject, ckpt)
    space = open_space(source, weights, layer)
    if subject is not None and subject.sha256 == space.loaded.sha256:
        raise UserError(f"--source {source} is the model that is judged; give an encoder that had no part in it")
    data = prepared(data, subject, space)
    training, test = pictures(data.images("train"), reference), pictures(data.images("test"), num or MOST)
    if samples is not None:
        drawn = read_pictures(Path(samples), data.shape)
    else:
        assert subject is not None
        drawn = draw(subject, num or len(test), seed)
        if tuple(drawn.shape[2:]) != data.shape:
            raise UserError(f"--data: images are {data.shape}, samples {tuple(drawn.shape[2:])}; set --data.resolution")
    folder = Path(out) if out else default_folder(ckpt, samples)
    sets = {"samples": drawn, "test (floor)": test, "blurred test": blurred(test)}
    sets |= {"shuffled pixels": shuffled(test, seed), "noise": noise(len(test), data.shape, seed)}
    features = {name: space.features(images) for name, images in sets.items()}
    known = space.features(training)
    judge = Judge(known, features["test (floor)"], NEIGHBOURS, seed)
    order, distances = nearest(features["samples"], known)
    found = {name: judge.figures(one, distances if name == "samples" else None) for name, one in features.items()}
    flagged = judge.rule.flagged(distances)
    about = {
        "command": command_line(), "checkpoint": ckpt, "checkpoint_sha256": subject.sha256 if subject else None,
        "step": subject.step if subject else None, "samples": samples, "seed": seed, "space": space.to_dict(),
        "data": data.spec(), "identity": data.identity(), "training_images": len(training), "neighbours": NEIGHBOURS,
        "copies": {"threshold": judge.rule.threshold, "same": judge.rule.same,
                   "flagged": torch.nonzero(flagged).flatten().tolist()},
        "figures": {name: one.to_dict() for name, one in found.items()},
    }  # fmt: skip
    with only_writer(folder, "give another --out"):
        write(folder, about, picture(drawn, training[order], distances, flagged))
    print(f"features: {source}, layer {space.name}; against {len(training):,} training images")
    print(table(found))
    print(f"{int(flagged.sum())} of {len(drawn):,} samples are near-copies; {comment(found)}")
    print(f"wrote {folder / 'evaluate.json'}, nearest.png in {time.perf_counter() - started:.1f} s")


def check(ckpt: str | None, samples: str | None, source: str | None, num: int | None, reference: int) -> None:
    """Raise a UserError for options that exclude each other, are missing or out of range."""
    if (ckpt is None) == (samples is None):
        raise UserError("give either --ckpt, a checkpoint or a run, or --samples, a folder of pictures")
    if samples is not None and num is not None:
        raise UserError("--num: all pictures of --samples are judged; leave --num out")
    if (num is not None and num < 10) or reference < 10:
        raise UserError("--num and --reference must be at least 10")
    if source is None:
        raise UserError(
            "--source is missing: name an encoder trained on the same data, such as runs/families_simclr_digits after "
            "'igpt fit --config configs/families/simclr_digits.yaml'"
        )


def check_draws(subject: Loaded | LoadedSource, ckpt: str | None) -> None:
    """Raise a UserError for a family that has no samples."""
    if isinstance(subject, LoadedSource) and not subject.module.source.offers("sample"):
        name = subject.module.name
        raise UserError(f"--ckpt {ckpt} is {name}, which draws no samples; use another, or give it as --source")


def prepared(data: ImageDataModule | None, subject: Loaded | LoadedSource | None, space: Space) -> ImageDataModule:
    """The data given, or those of the checkpoint, once they fit the source."""
    if data is None:
        if subject is None:
            raise UserError("--data is missing: name what --samples are compared with, such as --data Digits")
        data = subject.data()
    space.loaded.module.core.check_resolution(data.shape)
    space.loaded.module.core.check_colors(data)
    data.prepare_data()
    return data


def pictures(images: LabelledImages, most: int) -> Tensor:
    """At most so many images of a split, evenly spaced, uint8 `(N, 3, R, R)`."""
    count = min(most, len(images))
    return torch.stack([images[int(at)][0] for at in torch.linspace(0, len(images) - 1, count).long()])


def draw(subject: Loaded | LoadedSource, num: int, seed: int) -> Tensor:
    """New pictures uint8 `(num, 3, R, R)`; each batch has a seed of its own."""
    found = []
    for start in range(0, num, AT_ONCE):
        count, own = min(AT_ONCE, num - start), rng_of(seed, start).initial_seed()
        if isinstance(subject, LoadedSource):
            found.append(subject.module.source.eval().sample(count, own).cpu())
            continue
        core = subject.module.eval().core
        with torch.inference_mode():
            found.append(core.decode(core.sample(count, SamplingOptions(seed=own))).cpu())
    return torch.cat(found)


def picture(drawn: Tensor, neighbours: Tensor, distances: Tensor, flagged: Tensor) -> Tensor:
    """The samples nearest to training images, each above its nearest one, in red frames where they are near-copies."""
    chosen = distances.argsort()[:SHOWN]
    pairs = []
    for images in (drawn, neighbours):
        side = enlarge(images[chosen], 4 if images.shape[-1] < 32 else 1)
        for edge in (side[:, :, :1], side[:, :, -1:], side[:, :, :, :1], side[:, :, :, -1:]):
            edge[flagged[chosen]] = torch.tensor(RED, dtype=torch.uint8)[:, None, None]
        pairs.append(side)
    return enlarge(grid(torch.cat(pairs), len(chosen), gap=2))


def write(folder: Path, about: dict[str, Any], shown: Tensor) -> None:
    """The picture, then the figures: where these are, the picture is."""
    save_picture(shown, folder / "nearest.png")
    with atomic_path(folder / "evaluate.json") as plain:
        plain.write_text(json.dumps(about, indent=1), encoding="utf-8")


def comment(found: dict[str, Figures]) -> str:
    """The samples' Frechet distance as a multiple of the floor."""
    floor, own = found["test (floor)"], found["samples"]
    times = f"{own.frechet / floor.frechet:.1f} times the floor" if floor.frechet > 0 else "the floor is 0"
    return f"Frechet distance {times}"


def default_folder(ckpt: str | None, samples: str | None) -> Path:
    """Default --out: evaluate/ in the run's folder, or beside the checkpoint or the folder of pictures."""
    if ckpt is None:
        assert samples is not None
        return Path(samples).absolute().with_name(f"{Path(samples).absolute().name}_evaluate")
    path = Path(ckpt).absolute()
    if path.parent.name != "checkpoints":
        return path.with_name(f"{path.stem}_evaluate")
    return path.parent.parent / "evaluate" / ("" if path.stem == "last" else path.stem)
