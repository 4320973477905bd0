"""Unlabelled images from anywhere: folder trees and webdataset-style tars, broken files and all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igpt.data import NO_LABEL, LabelledImages, Resolution, SplitOptions, UserError, atomic_path, check_background
from igpt_datamodules import files


class WebImages(files.StoredModule):
    """Every image below a folder, those inside its uncompressed tars included; unlabelled and unaugmented, as the
    paper's web images (section 3.1): shorter side 224, centre crop, down to R.

    Each process decodes each file once before training. What gives no picture is skipped; `skipped` lists (path,
    reason), a line is printed, and the whole list written where `report` says. Nothing inside a tar is ever unpacked to
    disk.

    Args:
        root: the folder.
        resolution: side R in pixels, or rows and columns.
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
        background: colour that transparent pictures are laid on: white, black, #ffcc00, ...
        manifest: of `igpt curate`: only the files of `root` that it keeps are read.
    """

    added: Mapping[str, Any] = {**files.StoredModule.added, "manifest": None}

    def __init__(
        self,
        root: str = "data/web",
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(val_share=0.05),
        test_share: float = 0.05,
        test_seed: int = 0,
        max_bad_share: float = 0.05,
        report: str | None = None,
        check: bool = True,
        background: str = "white",
        manifest: str | None = None,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        files.check_shares(test_share, max_bad_share)
        if self.split.labels_per_class is not None:
            raise UserError("data.split.labels_per_class: WebImages has no labels; leave it out")
        self.root = root
        self.test_share = test_share
        self.test_seed = test_seed
        self.max_bad_share = max_bad_share
        self.report = report
        self.check = check
        check_background(background)
        self.background = background
        self.manifest = manifest
        self._good = files.StoredList([])

    def prepare_data(self) -> None:
        """Find and decode every image, say in one line what was skipped, and write the report."""
        super().prepare_data()
        if self.report is not None:
            write_report(Path(self.report), self.skipped)

    def keep_broken(self) -> None:
        """Leave out only what cannot even be listed, such as damaged tars, however much that is."""
        self.check, self.max_bad_share = False, 1.0

    def load(self) -> Mapping[str, LabelledImages]:
        """Training and test images, by the share and the seed of the test split."""
        self._scan()
        train, test = files.split_test([NO_LABEL] * len(self._good), self.test_share, self.test_seed)
        return {"train": self._images(train), "test": self._images(test)}

    def _images(self, indices: list[int]) -> LabelledImages:
        none = [NO_LABEL] * len(indices)
        return files.StoredImages(self._good.take(indices), none, self.resolution, background=self.background)

    def _scan(self) -> None:
        """Look at the files once; what has been found is kept."""
        if self._good:
            return
        if not Path(self.root).is_dir():
            raise UserError(f"WebImages: {files.no_folder(Path(self.root))}; name another with --data.init_args.root")
        found, bad, unused = files.stored_images(self.root)
        stored = files.StoredList(found if self.manifest is None else self._listed(found, self.manifest))
        reasons = files.bad_images(stored, self.num_workers) if self.check else [""] * len(stored)
        bad += [(image.name, reason) for image, reason in zip(stored, reasons, strict=True) if reason]
        good = stored.take([row for row, reason in enumerate(reasons) if not reason])
        if not good:
            why = f" ({files.summary([*bad, *unused])})" if bad or unused else ""
            raise UserError(f"WebImages: {self.root} has no images{why}; put some there or name another folder")
        files.check_bad("WebImages", self.root, bad, len(good) + len(bad), self.max_bad_share)
        self._good, self.damaged, self.skipped = good, bad, [*bad, *unused]

    def _listed(self, found: list[files.Stored], manifest: str) -> list[files.Stored]:
        """Those of the images that the manifest keeps; a UserError where it keeps others."""
        kept = files.kept_files(manifest)
        listed = [one for one in found if files.listed(one, self.root) in kept]
        if len(listed) < len(kept):
            missing = min(kept - {files.listed(one, self.root) for one in listed})
            raise UserError(
                f"data.manifest {manifest} keeps {ascii(missing)[1:-1]}, which {self.root} lacks; name its root"
            )
        return listed


def write_report(target: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """One line `path TAB reason` each; a UserError where the file cannot be written."""
    try:
        with atomic_path(target) as temporary:
            temporary.write_text("".join(f"{path}\t{reason}\n" for path, reason in skipped), encoding="utf-8")
    except UserError as error:
        why = getattr(error.__cause__, "strerror", None) or "a folder"
        raise UserError(f"data.report {target} cannot be written ({why}); name another file") from error
