"""STL-10 in the binary version that the authors distribute, read by torchvision."""

from collections.abc import Mapping
from typing import Any

import torch
from torchvision import datasets

from igpt.data import (
    DEVICE_GIB,
    NO_LABEL,
    ImageDataModule,
    LabelledImages,
    Resolution,
    SplitOptions,
    TensorImages,
    UserError,
    stratified_split,
)
from igpt_datamodules.augment import ShiftedImages, resize_all
from igpt_datamodules.files import find_or_download


class STL10(ImageDataModule):
    """5,000 labelled training images, 10 % of them split off for validation, 8,000 test images, 96x96 (section 3.1).

    The paper ignores the 100,000 unlabelled images. With `use_unlabelled` they join the training split with label -1,
    for pre-training only; validation and test stay labelled.

    Args:
        root: folder of the archive or of the unpacked files.
        download: fetch the archive (2.6 GB) if it is not there.
        resolution: side R in pixels, or rows and columns; 96 is theirs, any other is resized bicubically.
        batch_size: images a batch and process; 128 in the paper.
        num_workers: loader processes; the images are in memory, so 0 is fast.
        seed: of the validation split and the training order.
        split: validation share, folding, low-data subsets.
        augment: train on shifted and mirrored images, as the paper fine-tunes CIFAR.
        use_unlabelled: train on the unlabelled images too; takes 2.8 GB of memory for a while.
        device_gib: GiB of images to keep on the GPU at most; training then augments them there.
    """

    num_classes = 10

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        augment: bool = False,
        use_unlabelled: bool = False,
        device_gib: float = DEVICE_GIB,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split, device_gib)
        self.root = root
        self.download = download
        self.augment = augment
        self.use_unlabelled = use_unlabelled
        if use_unlabelled and self.split.labels_per_class is not None:
            raise UserError("data: STL10 takes use_unlabelled or split.labels_per_class, not both; leave one out")

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        self._read("test")

    def load(self) -> Mapping[str, LabelledImages]:
        """The labelled parts in memory, and the unlabelled images in the training split where asked for."""
        kind = ShiftedImages if self.augment else TensorImages
        train, test = self._read("train"), self._read("test")
        self.class_names = tuple(getattr(train, "classes", ()))
        images, labels = self._tensors(train)
        parts: dict[str, LabelledImages] = {"test": TensorImages(*self._tensors(test))}
        if not self.use_unlabelled:
            return {**parts, "train": kind(images, labels)}
        # split here: the base would take the unlabelled for an eleventh class and validate on some of them
        kept, off = stratified_split(labels, self.split.val_share, self.seed)
        parts["val"] = TensorImages(images[off], labels[off])
        if self.split.fold_validation:
            kept = sorted(kept + off)
        more = self._tensors(self._read("unlabeled"))
        return {**parts, "train": kind(torch.cat([images[kept], more[0]]), torch.cat([labels[kept], more[1]]))}

    def _read(self, part: str) -> Any:
        kind = datasets.STL10
        return find_or_download(
            kind, self.root, self.download, lambda fetch: kind(self.root, split=part, download=fetch)
        )

    def _tensors(self, part: Any) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.as_tensor(part.labels, dtype=torch.int64)
        assert bool((labels >= NO_LABEL).all())
        return resize_all(torch.from_numpy(part.data), self.resolution).contiguous(), labels
