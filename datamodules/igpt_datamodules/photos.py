"""Patches of scikit-learn's two sample photos: the smallest natural images at hand, no download."""

from collections.abc import Mapping

import torch
from torch import Tensor

from igpt.data import ImageDataModule, LabelledImages, Resolution, UserError

VAL_WIDTH, TEST_WIDTH = 64, 128  # columns of each photo, from the right


class Patches(LabelledImages):
    """Patches of photos `(3, H, W)` at every `stride` pixels inside the columns `left..right`."""

    def __init__(self, photos: list[Tensor], left: int, right: int, shape: tuple[int, int], stride: int) -> None:
        self.photos, self.shape = photos, shape
        self.corners = [
            (photo, y, x)
            for photo in range(len(photos))
            for y in range(0, photos[photo].shape[1] - shape[0] + 1, stride)
            for x in range(left, right - shape[1] + 1, stride)
        ]
        self.labels = torch.tensor([photo for photo, _, _ in self.corners])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        photo, y, x = self.corners[index]
        return self.photos[photo][:, y : y + self.shape[0], x : x + self.shape[1]], photo


class SamplePhotos(ImageDataModule):
    """A temple and a flower, 427 x 640 pixels each, cut into patches; the label is the photo.

    The photos are divided by column: the left part trains, the next 64 columns validate, the last 128 test, so that
    no pixel is in two splits. Patches inside a split overlap.

    Args:
        resolution: side R of the patches in pixels, or rows and columns, at most 64.
        batch_size: patches a batch and process.
        num_workers: loader processes.
        seed: of the training order.
        stride: pixels between neighbouring patches.
    """

    num_classes = 2
    class_names = ("china", "flower")

    def __init__(
        self, resolution: Resolution = 32, batch_size: int = 32, num_workers: int = 0, seed: int = 0, stride: int = 8
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed)
        if max(self.shape) > VAL_WIDTH or stride < 1:
            raise UserError(f"data: SamplePhotos needs resolution <= {VAL_WIDTH} and stride >= 1")
        self.stride = stride

    def load(self) -> Mapping[str, LabelledImages]:
        """The three regions, cut into patches."""
        from sklearn.datasets import load_sample_images

        photos = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
        width = photos[0].shape[2]
        test_left, val_left = width - TEST_WIDTH, width - TEST_WIDTH - VAL_WIDTH
        columns = {"train": (0, val_left), "val": (val_left, test_left), "test": (test_left, width)}
        return {name: Patches(photos, left, right, self.shape, self.stride) for name, (left, right) in columns.items()}
