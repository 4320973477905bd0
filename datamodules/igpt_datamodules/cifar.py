"""CIFAR-10 and CIFAR-100 in the python version that the authors distribute, read by torchvision."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torchvision import datasets

from igpt.data import ImageDataModule, LabelledImages, SplitOptions, TensorImages, UserError
from igpt_datamodules.resize import resize_all


class CIFAR10(ImageDataModule):
    """50,000 training images, 10 % of them split off for validation (section 3.1), and 10,000 test images, 32x32.

    Args:
        root: folder of the archive or of the unpacked files.
        download: fetch the archive if it is not there.
        resolution: side R in pixels; 32 is theirs, any other is resized bicubically.
        batch_size: images a batch and process; 128 in the paper.
        num_workers: loader processes; the images are in memory, so 0 is fast.
        seed: of the validation split and the training order.
        split: validation share, folding, low-data subsets.

    """

    num_classes = 10
    dataset: ClassVar[Any] = datasets.CIFAR10

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        resolution: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)
        self.root = root
        self.download = download

    def prepare_data(self) -> None:
        """Find the files, or download them.

        Raises:
            UserError: they are not there and cannot be had; says where to put which file.

        """
        try:
            self.dataset(self.root, train=True, download=False)
            self.dataset(self.root, train=False, download=False)
        except RuntimeError:
            self._download()

    def _download(self) -> None:
        name, file = self.dataset.__name__, self.dataset.filename
        mend = (
            f"put {file} (md5 {self.dataset.tgz_md5}) into {self.root}/ or name its folder with --data.init_args.root"
        )
        if not self.download:
            raise UserError(f"{name} is not in {self.root}/ and download is false; {mend}")
        try:
            self.dataset(self.root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{name} is not in {self.root}/ and cannot be downloaded ({reason}); {mend}") from error

    def load(self) -> Mapping[str, LabelledImages]:
        """Both parts, in memory."""
        self.prepare_data()
        parts = {"train": self.dataset(self.root, train=True), "test": self.dataset(self.root, train=False)}
        self.class_names = tuple(parts["train"].classes)
        return {name: self._tensors(part) for name, part in parts.items()}

    def _tensors(self, part: Any) -> TensorImages:
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return TensorImages(resize_all(images, self.resolution), torch.tensor(part.targets))


class CIFAR100(CIFAR10):
    """As CIFAR-10, with 100 classes of 500 training images each."""

    num_classes = 100
    dataset: ClassVar[Any] = datasets.CIFAR100
