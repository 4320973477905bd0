"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: real images, no download."""

from collections.abc import Mapping

import numpy as np
import torch

from igpt.data import ImageDataModule, LabelledImages, Resolution, SplitOptions, TensorImages, stratified_split
from igpt_datamodules.augment import resize_all

TEST_SHARE = 0.2
TEST_SEED = 0  # the test split is the same for every seed, so that runs can be compared


class Digits(ImageDataModule):
    """scikit-learn's digits, 17 grey levels: 1,294 to train, 144 to validate, 359 to test.

    Args:
        resolution: side R in pixels, or rows and columns; 8 is theirs, any other is resized bicubically.
        batch_size: images a batch and process.
        num_workers: loader processes.
        seed: of the validation split and the training order; the test split never changes.
        split: validation share, folding, low-data subsets.
    """

    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        resolution: Resolution = 8,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split)

    def load(self) -> Mapping[str, LabelledImages]:
        """All digits as grey RGB images, the same fifth always kept for the test."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
        images = resize_all(grey[:, None].repeat(1, 3, 1, 1), self.resolution)
        labels = torch.from_numpy(bunch.target)
        train, test = stratified_split(labels, TEST_SHARE, TEST_SEED)
        return {"train": TensorImages(images[train], labels[train]), "test": TensorImages(images[test], labels[test])}
