"""`HuggingFace`: any data set that the package `datasets` reads: of the hub, a local folder, or parquet files."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from igpt.data import NO_LABEL, LabelledImages, Resolution, Split, SplitOptions, UserError, check_background
from igpt_datamodules import files, hub_rows
from igpt_datamodules.hub_rows import Rows

Labelled = tuple[Rows, list[int]]


class HuggingFace(files.StoredModule):
    """A data set of the Hugging Face hub, a local folder of one, or parquet files, by the package `datasets`.

    A folder may be one of `save_to_disk`, of class folders, or of parquet files. Pictures are decoded when needed, by
    the same rules as files. The hub's data sets are downloaded and kept by `datasets` where it keeps them all; none of
    their code is ever executed.

    Args:
        path: folder, parquet file (* stands for any letters), or name on the hub, such as ylecun/mnist.
        name: configuration of the data set, where it has several.
        image_column: column of the pictures; the only one if left out.
        label_column: column of the classes, whole numbers or strings; if left out the only one that is of classes, or
            else "label".
        labels: false: without labels, for pre-training only.
        train_split: name of the split to train on; "train", or the only one, if left out.
        val_split: of the validation split; "validation" or "val" if left out, and if there is none, a share of train.
        test_split: of the test split; "test" if left out, and if there is none, a share of train.
        revision: branch, tag or commit on the hub.
        resolution: side R in pixels, or rows and columns.
        batch_size: images a batch and process.
        num_workers: loader processes; as many as there are cores, since every image is decoded anew.
        seed: of the validation split, the training order and the augmentation.
        split: validation share, folding, low-data subsets.
        augment: train on random crops as the paper does on ImageNet; else on the centre.
        test_share: share that becomes the test split where there is none.
        test_seed: which images these are; apart from `seed`, so that runs with other seeds can be compared.
        on_error: of a row that gives no picture: raise ends the run when its turn comes; skip decodes each once before
            training, as `WebImages` does, and leaves it out.
        max_bad_share: with on_error skip, stop if more than this share of the rows is bad.
        background: colour that transparent pictures are laid on: white, black, #ffcc00, ...

    Raises:
        UserError: `datasets` is not installed, or the options do not fit together.
    """

    compared = 0  # to compare pictures byte for byte, all would have to be read; `igpt check` does
    name: str | None

    def __init__(
        self,
        path: str,
        name: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        labels: bool = True,
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        revision: str | None = None,
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        augment: bool = False,
        test_share: float = 0.1,
        test_seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.05,
        background: str = "white",
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        files.check_shares(test_share, max_bad_share)
        check_background(background)
        if not labels and (label_column is not None or self.split.labels_per_class is not None):
            raise UserError("data.labels false goes with neither label_column nor split.labels_per_class; leave it out")
        self.path = path
        self.name = name
        self.image_column = image_column
        self.label_column = label_column
        self.labels = labels
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.revision = revision
        self.augment = augment
        self.test_share = test_share
        self.test_seed = test_seed
        self.on_error = on_error
        self.max_bad_share = max_bad_share
        self.background = background

    def keep_broken(self) -> None:
        """Leave no image out."""
        self.on_error = "raise"

    def identity(self) -> dict[str, Any]:
        """As of any data module; the root is the path."""
        return super().identity() | {"root": self.path}

    def load(self) -> Mapping[str, LabelledImages]:
        """The set's own splits; without a test split, a share of the training images is drawn for it."""
        sets = hub_rows.read(self.path, self.name, self.revision)
        asked: dict[Split, str | None] = {"train": self.train_split, "val": self.val_split, "test": self.test_split}
        names = hub_rows.chosen_splits(self.path, list(sets), asked)
        parts = {split: (name, sets[name]) for split, name in names.items()}
        features = parts["train"][1].features
        column = hub_rows.image_column(self.path, features, self.image_column)
        rows = hub_rows.rows_of(dict(parts.values()), column)
        labels = {split: [NO_LABEL] * len(table) for split, (_, table) in parts.items()}
        if self.labels:
            classes = hub_rows.label_column(self.path, features, self.label_column)
            self.class_names, labels = hub_rows.class_labels(self.path, parts, classes)
            self.num_classes = len(self.class_names)
        found = self._usable([(rows.take(rows.spans[name]), labels[split]) for split, (name, _) in parts.items()])
        return self._images(rows, dict(zip(parts, found, strict=True)))

    def _usable(self, found: list[Labelled]) -> list[Labelled]:
        """With on_error skip the rows that give a picture; else all."""
        if self.on_error == "raise":
            return found
        good, bad = files.without_bad("HuggingFace", self.path, found, self.num_workers, self.max_bad_share)
        self.damaged = self.skipped = bad
        return good

    def _images(self, rows: Rows, found: dict[Split, Labelled]) -> dict[str, LabelledImages]:
        """The splits, the test split drawn where there is none, and the validation images folded in if asked for."""
        if "test" not in found:
            stored, labels = found["train"]
            parts = files.split_test(labels, self.test_share, self.test_seed)
            found["train"], found["test"] = ((stored.take(part), [labels[i] for i in part]) for part in parts)
        if "val" in found and self.split.fold_validation:
            (one, labels), (other, more) = found["train"], found["val"]
            found["train"] = rows.take(np.concatenate([one.rows, other.rows])), labels + more
        return {
            split: files.StoredImages(
                stored, labels, self.resolution, self.augment and split == "train", self.background
            )
            for split, (stored, labels) in found.items()
        }
