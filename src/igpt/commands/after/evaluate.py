"""`igpt evaluate`: how good samples are, and whether they are copies of training images."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.checkpoints import find_checkpoint
from igpt.commands.after.encoders import distance_name, found_encoder
from igpt.data import ImageDataModule, LabelledImages, enlarge, grid, rng_of, save_picture
from igpt.evaluation import CopyRule, Figures, Judge, Space, blurred, noise, open_space, read_pictures, shuffled, table
from igpt.families import LoadedSource, open_checkpoint
from igpt.model import SamplingOptions
from igpt.modules import Loaded
from igpt.parsing import command_line
from igpt.system import UserError, atomic_path, only_writer

MOST = 2000  # samples drawn where --num does not say
AT_ONCE = 100
SHOWN = 16  # samples in the picture
NEIGHBOURS = 3
FLOOR = "test (floor)"
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
            no part in the samples. If left out, a run of SimCLR or MoCo on the same data, beside the run or in runs/.
        weights: of the source, a state dict's file.
        layer: of the source, by name or number; the last if left out.
        num: samples to draw; as many as there are test images, at most 2,000, if left out.
        reference: training images to compare with at most, evenly spaced; copies are looked for among these.
        seed: of the samples, the noise and the subsets.
        out: folder to write to; "evaluate" in the run's folder, or FOLDER_evaluate, if left out.

    Raises:
        UserError: the model draws nothing, the folder has no pictures of this size, or a source does not fit.
    """
    check(ckpt, samples, num, reference)
    started = time.perf_counter()
    subject = open_checkpoint(ckpt) if ckpt else None
    if subject is not None:
        check_draws(subject, ckpt)
    data = prepared(data, subject)
    source = source or found_encoder(data, run_folders(ckpt))
    space = fitting_space(source, weights, layer, subject, data)
    training, test = pictures(data.images("train"), reference), pictures(data.images("test"), num or MOST)
    drawn = read_pictures(Path(samples), data.shape) if samples else drawn_by(subject, num or len(test), seed, data)
    features = {name: space.features(images) for name, images in sets_of(drawn, test, seed).items()}
    known, featured = space.features(training), time.perf_counter()
    judged = judge(features, known, seed)
    called = distance_name(source, space.name, weights, known.shape[1])
    about = {
        "command": command_line(), "checkpoint": ckpt, "checkpoint_sha256": subject.sha256 if subject else None,
        "step": subject.step if subject else None, "samples": samples, "seed": seed, "space": space.to_dict(),
        "distance": called, "data": data.spec(), "identity": data.identity(), "training_images": len(training),
        **judged.to_dict(),
    }  # fmt: skip
    folder = Path(out) if out else default_folder(ckpt, samples)
    with only_writer(folder, "give another --out"):
        write(folder, about, picture(drawn, training[judged.nearest], judged.distances, judged.flagged))
    print(f"{called}; against {len(training):,} training images")
    print(table(judged.figures))
    print(f"{int(judged.flagged.sum())} of {len(drawn):,} samples are near-copies; {comment(judged.figures)}")
    ended = time.perf_counter()
    print(
        f"wrote {folder / 'evaluate.json'}, nearest.png in {ended - started:.1f} s ({ended - featured:.1f} s figures)"
    )


@dataclass(frozen=True)
class Judged:
    """Figures of every set, and of the samples the nearest training images."""

    figures: dict[str, Figures]
    rule: CopyRule
    nearest: Tensor
    distances: Tensor

    @property
    def flagged(self) -> Tensor:
        """Which samples are near-copies."""
        return self.rule.flagged(self.distances)

    def to_dict(self) -> dict[str, Any]:
        """For evaluate.json."""
        flagged = torch.nonzero(self.flagged).flatten().tolist()
        copies = {"threshold": self.rule.threshold, "same": self.rule.same, "flagged": flagged}
        figures = {name: one.to_dict() for name, one in self.figures.items()}
        return {"neighbours": NEIGHBOURS, "copies": copies, "figures": figures}


def judge(features: dict[str, Tensor], training: Tensor, seed: int) -> Judged:
    """All figures of the samples and their controls.

    Args:
        features: of each set, `(M, D)`.
        training: features of training images, `(N, D)`.
        seed: of the kernel distance's subsets.
    """
    one = Judge(training, features[FLOOR], NEIGHBOURS, seed)
    figures = {name: one.figures(some) for name, some in features.items()}
    return Judged(figures, one.rule, *one.nearest(features["samples"]))


def sets_of(drawn: Tensor, test: Tensor, seed: int) -> dict[str, Tensor]:
    """The samples, and the sets of known quality beside them."""
    shape = (test.shape[2], test.shape[3])
    found = {"samples": drawn, FLOOR: test, "blurred test": blurred(test)}
    return found | {"shuffled pixels": shuffled(test, seed), "noise": noise(len(test), shape, seed)}


def run_folders(ckpt: str | None) -> list[Path]:
    """Where encoders are looked for: beside the run that is judged, and in runs/."""
    file = find_checkpoint(ckpt) if ckpt else None
    beside = [file.absolute().parents[2]] if file is not None and file.parent.name == "checkpoints" else []
    return [*beside, Path("runs")]


def fitting_space(
    source: str, weights: str | None, layer: str | None, subject: Loaded | LoadedSource | None, data: ImageDataModule
) -> Space:
    """The space of a source that is not the model that is judged, and takes the data."""
    space = open_space(source, weights, layer)
    if subject is not None and subject.sha256 == space.loaded.sha256:
        raise UserError(f"--source {source} is the model that is judged; give an encoder that had no part in it")
    space.loaded.module.core.check_resolution(data.shape)
    space.loaded.module.core.check_colors(data)
    return space


def drawn_by(subject: Loaded | LoadedSource | None, num: int, seed: int, data: ImageDataModule) -> Tensor:
    """Samples of the model; a UserError where they are of another size than the data."""
    assert subject is not None
    drawn = draw(subject, num, seed)
    if tuple(drawn.shape[2:]) != data.shape:
        raise UserError(f"--data: images are {data.shape}, samples {tuple(drawn.shape[2:])}; set --data.resolution")
    return drawn


def check(ckpt: str | None, samples: str | None, num: int | None, reference: int) -> None:
    """Raise a UserError for options that exclude each other, are missing or out of range."""
    if (ckpt is None) == (samples is None):
        raise UserError("give either --ckpt, a checkpoint or a run, or --samples, a folder of pictures")
    if samples is not None and num is not None:
        raise UserError("--num: all pictures of --samples are judged; leave --num out")
    if (num is not None and num < 10) or reference < 10:
        raise UserError("--num and --reference must be at least 10")


def check_draws(subject: Loaded | LoadedSource, ckpt: str | None) -> None:
    """Raise a UserError for a family that has no samples."""
    if isinstance(subject, LoadedSource) and not subject.module.source.offers("sample"):
        name = subject.module.name
        raise UserError(f"--ckpt {ckpt} is {name}, which draws no samples; use another, or give it as --source")


def prepared(data: ImageDataModule | None, subject: Loaded | LoadedSource | None) -> ImageDataModule:
    """The data given, or those of the checkpoint."""
    if data is None:
        if subject is None:
            raise UserError("--data is missing: name what --samples are compared with, such as --data Digits")
        data = subject.data()
    data.check_pictures()
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
    floor, own = found[FLOOR], found["samples"]
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
