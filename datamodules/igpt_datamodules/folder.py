"""Images in class folders, read from disk one at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from igpt.data import LabelledImages, Resolution, SplitOptions, UserError, check_background
from igpt_datamodules import files


class ImageFolder(files.StoredModule):
    """Your own classes: ROOT/train/CLASS/... and ROOT/test/CLASS/..., with or without ROOT/val/CLASS/...

    Or only ROOT/CLASS/..., from which a stratified share becomes the test split. The folders of the splits may be named
    in any letter case, and training, valid, validation or testing. Images may have any size and format that Pillow
    reads safely; they are read when needed. Links are followed. What is hidden, of the system, or no picture by its
    name is left out, counted in one line and listed in `skipped`; pictures that are in two splits byte for byte are
    counted, too, where there are at most 50,000 images.

    Args:
        root: the folder.
        resolution: side R in pixels, or rows and columns.
        batch_size: images a batch and process.
        num_workers: loader processes; as many as there are cores, since every image is decoded anew.
        seed: of the validation split, the training order and the augmentation.
        split: validation share (unused where ROOT/val exists), folding, low-data subsets.
        augment: train on random crops as the paper does on ImageNet; else on the centre.
        test_share: share that becomes the test split where there is no ROOT/test.
        test_seed: which images these are; apart from `seed`, so that runs with other seeds can be compared.
        classes: the order of the classes, and so of their labels: natural (2 before 10), sorted (by code point, as
            torchvision does), or a list of all their names, as checkpoints keep it.
        on_error: of a file that gives no picture: raise ends the run when its turn comes; skip decodes each file once
            before training, as `WebImages` does, and leaves it out.
        max_bad_share: with on_error skip, stop if more than this share of the files is bad.
        background: colour that transparent pictures are laid on: white, black, #ffcc00, ...
    """

    def __init__(
        self,
        root: str = "data/images",
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        augment: bool = True,
        test_share: float = 0.1,
        test_seed: int = 0,
        classes: files.ClassOrder = "natural",
        on_error: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.05,
        background: str = "white",
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        files.check_shares(test_share, max_bad_share)
        if isinstance(classes, list) and len(set(classes)) < len(classes):
            raise UserError("data.classes names a class twice; name each once")
        self.root = root
        self.augment = augment
        self.test_share = test_share
        self.test_seed = test_seed
        self.classes = classes
        self.on_error = on_error
        self.max_bad_share = max_bad_share
        check_background(background)
        self.background = background

    @classmethod
    def completed(cls, init_args: dict[str, Any]) -> dict[str, Any]:
        """Checkpoints that say nothing about the order of the classes were made when it was that of code points."""
        return {"classes": "sorted"} | init_args

    def spec(self) -> dict[str, Any]:
        """As of any data module; once the folders have been read, with the classes in the order of their labels."""
        spec = super().spec()
        if self.class_names:
            spec["init_args"]["classes"] = list(self.class_names)
        return spec

    def keep_broken(self) -> None:
        """Leave no image out."""
        self.on_error = "raise"

    def load(self) -> Mapping[str, LabelledImages]:
        """The parts that have folders of their own; else the test split, drawn from the one tree."""
        root = Path(self.root)
        parts = files.split_folders(root) if root.is_dir() else {}
        if "train" in parts and files.class_folders(parts["train"]):
            found = self._separate(root, parts)
        else:
            check_one_tree(root, parts)
            found = self._drawn(root)
        self.num_classes = len(self.class_names)
        return found

    def _drawn(self, root: Path) -> dict[str, LabelledImages]:
        self.class_names, found = files.training_files(root, self.classes)
        stored, labels = self._usable([found])[0]
        by_name = sorted(range(len(self.class_names)), key=self.class_names.__getitem__)
        rank = {label: place for place, label in enumerate(by_name)}  # the split does not depend on the labels' order
        kept, off = files.split_test([rank[label] for label in labels], self.test_share, self.test_seed)
        return {
            "train": self._images(stored.take(kept), [labels[i] for i in kept], self.augment),
            "test": self._images(stored.take(off), [labels[i] for i in off]),
        }

    def _separate(self, root: Path, folders: Mapping[Any, Path]) -> dict[str, LabelledImages]:
        self.class_names, train = files.training_files(folders["train"], self.classes)
        self.beside, unused = files.beside(root, list(folders.values()))
        if "test" not in folders:
            hint = f" (beside {folders['train'].name} there is {', '.join(self.beside)})" if self.beside else ""
            raise UserError(f"folder {root / 'test'} is missing{hint}; put class folders with images into it")
        names = [name for name in ("train", "test", "val") if name in folders]
        found = [train, *(files.labelled_files(folders[name], self.class_names) for name in names[1:])]
        parts = dict(zip(names, self._usable(found, unused), strict=True))
        if "val" in parts and self.split.fold_validation:
            both = [*parts["train"][0], *parts["val"][0]]
            parts["train"] = files.StoredList(both), parts["train"][1] + parts["val"][1]
        return {name: self._images(*part, self.augment and name == "train") for name, part in parts.items()}

    def _usable(
        self, parts: list[files.Labelled], unused: files.Skipped | None = None
    ) -> list[tuple[files.StoredList, list[int]]]:
        """Images and labels of several folders; with on_error skip without the bad ones. Notes what is left out."""
        self.skipped = [*(unused or []), *(one for part in parts for one in part.unused)]
        usable = [(files.StoredList(map(files.Stored, part.files)), part.labels) for part in parts]
        if self.on_error == "raise":
            return usable
        good, bad = files.without_bad(type(self).__name__, self.root, usable, self.num_workers, self.max_bad_share)
        self.damaged, self.skipped = bad, [*bad, *self.skipped]
        return good

    def _images(self, stored: files.StoredList, labels: list[int], augment: bool = False) -> LabelledImages:
        return files.StoredImages(stored, labels, self.resolution, augment, self.background)


def check_one_tree(root: Path, parts: Mapping[Any, Path]) -> None:
    """Raise a UserError where all folders of a root are named after splits, but hold no classes."""
    if not parts or set(files.class_folders(root)) - {folder.name for folder in parts.values()}:
        return
    if "train" not in parts:
        raise UserError(f"folder {root / 'train'} is missing; put class folders with images into it")
    train = parts["train"]
    raise UserError(
        f"folder {train} has no class folders; sort its images into {train}/CLASS/, or read them with WebImages"
    )
