"""CIFAR-10 and CIFAR-100 in the python version that the authors distribute, read by torchvision."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torchvision import datasets

from igpt.data import DEVICE_GIB, ImageDataModule, LabelledImages, Resolution, SplitOptions, TensorImages
from igpt_datamodules.augment import ShiftedImages, resize_all
from igpt_datamodules.files import find_or_download


class CIFAR10(ImageDataModule):
    """50,000 training images, 10 % of them split off for validation (section 3.1), and 10,000 test images, 32x32.

    Args:
        root: folder of the archive or of the unpacked files.
        download: fetch the archive if it is not there.
        resolution: side R in pixels, or rows and columns; 32 is theirs, any other is resized bicubically.
        batch_size: images a batch and process; 128 in the paper.
        num_workers: loader processes; the images are in memory, so 0 is fast.
        seed: of the validation split and the training order.
        split: validation share, folding, low-data subsets.
        augment: train on padded, randomly cropped and mirrored images: the paper's fine-tuning (section 3.1).
        device_gib: GiB of images to keep on the GPU at most; training then augments them there.
    """

    num_classes = 10
    dataset: ClassVar[Any] = datasets.CIFAR10

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
        device_gib: float = DEVICE_GIB,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split, device_gib)
        self.root = root
        self.download = download
        self.augment = augment

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        self._read()

    def load(self) -> Mapping[str, LabelledImages]:
        """Both parts, in memory."""
        train, test = self._read()
        self.class_names = tuple(train.classes)
        kind = ShiftedImages if self.augment else TensorImages
        return {"train": kind(*self._tensors(train)), "test": TensorImages(*self._tensors(test))}

    def _read(self) -> list[Any]:
        return find_or_download(
            self.dataset,
            self.root,
            self.download,
            lambda fetch: [self.dataset(self.root, train=train, download=fetch) for train in (True, False)],
        )

    def _tensors(self, part: Any) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return resize_all(images, self.resolution), torch.tensor(part.targets)


class CIFAR100(CIFAR10):
    """As CIFAR-10, with 100 classes of 500 training images each."""

    num_classes = 100
    dataset: ClassVar[Any] = datasets.CIFAR100
