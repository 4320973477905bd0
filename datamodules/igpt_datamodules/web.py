"""Unlabelled images from anywhere: folder trees and webdataset-style tars, broken files and all."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from igpt.data import NO_LABEL, BadImageError, ImageDataModule, LabelledImages, SplitOptions, UserError
from igpt_datamodules.folder import StoredImages, check_share, split_test
from igpt_datamodules.reading import Stored, read_rgb
from igpt_datamodules.shards import Skipped, stored_images

NAMED = 3  # skipped files that the one-line report names


class WebImages(ImageDataModule):
    """Every image below a folder, those inside its uncompressed tars included; unlabelled and unaugmented, as the
    paper's web images (section 3.1): shorter side 224, centre crop, down to R.

    Each process decodes each file once before training. What gives no picture is skipped; `skipped` lists (path,
    reason), a line is printed, and the whole list written where `report` says. Nothing inside a tar is ever unpacked to
    disk.

    Args:
        root: the folder.
        resolution: side R in pixels.
        batch_size: images a batch and process.
        num_workers: loader processes, also used to look for bad files; as many as there are cores.
        seed: of the validation split and the training order.
        split: validation share (5 % here) and folding; `labels_per_class` is refused.
        test_share: share kept for the test split.
        test_seed: which images these are; apart from `seed`, so that runs with other seeds can be compared.
        max_bad_share: stop if more than this share of the files is bad, since then it is probably the wrong folder.
        check: decode each file before training. False leaves broken files to `igpt tokenize`, which skips them itself,
            so that every file is read once; the splits are then made before it is known which files are bad.
        report: file to write every skipped path and its reason to, separated by a tab.
    """

    def __init__(
        self,
        root: str = "data/web",
        resolution: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(val_share=0.05),
        test_share: float = 0.05,
        test_seed: int = 0,
        max_bad_share: float = 0.05,
        report: str | None = None,
        check: bool = True,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        check_share("test_share", test_share)
        if not 0 <= max_bad_share <= 1:
            raise UserError(f"data.max_bad_share {max_bad_share} must lie from 0 to 1")
        if self.split.labels_per_class is not None:
            raise UserError("data.split.labels_per_class: WebImages has no labels; leave it out")
        self.root = root
        self.test_share = test_share
        self.test_seed = test_seed
        self.max_bad_share = max_bad_share
        self.report = report
        self.check = check
        self.skipped: Skipped = []
        self._good: list[Stored] = []

    def prepare_data(self) -> None:
        """Find and decode every image, print what was skipped, and write the report.

        Raises:
            UserError: the folder is missing or has no images, too many are bad, or the report cannot be written.
        """
        self._scan()
        if self.skipped:
            print(f"WebImages: {len(self._good):,} images; {summary(self.skipped)}")
        if self.report is not None:
            write_report(Path(self.report), self.skipped)

    def load(self) -> Mapping[str, LabelledImages]:
        """Training and test images, by the share and the seed of the test split."""
        self._scan()
        train, test = split_test([NO_LABEL] * len(self._good), self.test_share, self.test_seed)
        return {"train": self._images(train), "test": self._images(test)}

    def _images(self, indices: list[int]) -> LabelledImages:
        return StoredImages([self._good[i] for i in indices], [NO_LABEL] * len(indices), self.resolution)

    def _scan(self) -> None:
        """Look at the files once; what has been found is kept."""
        if self._good:
            return
        if not Path(self.root).is_dir():
            raise UserError(f"WebImages: folder {self.root} is missing; name another with --data.init_args.root")
        stored, skipped = stored_images(self.root)
        reasons = bad_images(stored, self.num_workers) if self.check else [""] * len(stored)
        skipped += [(image.name, reason) for image, reason in zip(stored, reasons, strict=True) if reason]
        good = [image for image, reason in zip(stored, reasons, strict=True) if not reason]
        if not good:
            why = f" ({summary(skipped)})" if skipped else ""
            raise UserError(f"WebImages: {self.root} has no images{why}; put some there or name another folder")
        if len(skipped) > self.max_bad_share * (len(good) + len(skipped)):
            raise UserError(
                f"WebImages: {summary(skipped)}, of {len(good) + len(skipped):,} in {self.root}, more than "
                f"max_bad_share {self.max_bad_share}; mend them or raise --data.init_args.max_bad_share"
            )
        self._good, self.skipped = good, skipped


class _Reasons(Dataset[str]):
    """Why an image is bad, or an empty string."""

    def __init__(self, stored: list[Stored]) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> str:
        try:
            read_rgb(self.stored[index])
        except BadImageError as error:
            return str(error)
        return ""


def bad_images(stored: list[Stored], num_workers: int = 0) -> list[str]:
    """For each image why it cannot be used, or an empty string: all of them are decoded, in so many processes."""
    loader = DataLoader(_Reasons(stored), batch_size=64, num_workers=num_workers, collate_fn=list)
    state = torch.get_rng_state()  # a loader draws a number; looking at files must not change what training draws
    reasons = [reason for batch in loader for reason in batch]
    torch.set_rng_state(state)
    return reasons


def summary(skipped: Skipped) -> str:
    """One line: how many were skipped, why, and the first few."""
    kinds = Counter(reason.partition(":")[0] for _, reason in skipped)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    first = ", ".join(f"{path} ({reason})" for path, reason in skipped[:NAMED])
    return f"{len(skipped):,} skipped: {counts}; first: {first}"


def write_report(target: Path, skipped: Skipped) -> None:
    """One line `path TAB reason` each, written whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("".join(f"{path}\t{reason}\n" for path, reason in skipped), encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"data.report {target} cannot be written ({error.strerror}); name another file") from error
