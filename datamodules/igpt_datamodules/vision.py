"""`TorchVision`: the classification sets that torchvision knows, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torchvision import datasets

from igpt.data import (
    DEVICE_GIB,
    ChosenImages,
    ImageDataModule,
    LabelledImages,
    Resolution,
    Split,
    SplitOptions,
    TensorImages,
    UserError,
)
from igpt_datamodules import files
from igpt_datamodules.augment import ShiftedImages
from igpt_datamodules.vision_sets import SETS, Content, content, joined, opened


class TorchVision(ImageDataModule):
    """A classification set of torchvision by the name of its class: FashionMNIST, SVHN, Food101, Flowers102 and so on.

    Splits are the set's own. Where it has no validation split, a share of the training images is split off; where it
    has no test split, that too, the same for every `seed`. Where the official test has no labels, the official
    validation split is the test (CLEVRClassification, Imagenette, INaturalist, Places365). Class names and labels are
    torchvision's. Picture files are decoded when needed; what torchvision holds in memory stays there.

    Args:
        name: of the class in torchvision.datasets.
        root: folder below which torchvision keeps the files.
        download: have torchvision fetch or unpack what is missing.
        resolution: side R in pixels, or rows and columns.
        batch_size: images a batch and process.
        num_workers: loader processes; for picture files as many as there are cores.
        seed: of the validation split, the training order and the augmentation.
        split: validation share, folding, low-data subsets.
        augment: train as the paper does: of picture files on random crops, of images in memory on shifted and mirrored
            ones.
        test_share: share that becomes the test split where there is none.
        test_seed: which images these are; apart from `seed`, so that runs with other seeds can be compared.
        options: further arguments of torchvision's class, such as {split: letters} of EMNIST, {partition: 2} of DTD,
            {annotation_level: family} of FGVCAircraft, {size: 160px} of Imagenette, {small: true} of Places365.
        device_gib: GiB of images in memory to keep on the GPU at most; training then augments them there.

    Raises:
        UserError: no set of this name, with the nearest ones; or an option that it does not take.
    """

    name: str

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = True,
        resolution: Resolution = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        split: SplitOptions = SplitOptions(),
        augment: bool = False,
        test_share: float = 0.1,
        test_seed: int = 0,
        options: dict[str, Any] | None = None,
        device_gib: float = DEVICE_GIB,
    ) -> None:
        super().__init__(resolution, batch_size, num_workers, seed, split, device_gib)
        check_name(name)
        files.check_shares(test_share)
        if wrong := sorted(set(options or {}) - set(SETS[name].options)):
            takes = ", ".join(SETS[name].options) or "none"
            raise UserError(f"data.options.{wrong[0]} is no option of {name}; it takes {takes}")
        self.name = name
        self.root = root
        self.download = download
        self.augment = augment
        self.test_share = test_share
        self.test_seed = test_seed
        self.options = options

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        self.setup()

    def identity(self) -> dict[str, Any]:
        """As of any data module, under the name of the set."""
        return super().identity() | {"name": self.name}

    def load(self) -> Mapping[str, LabelledImages]:
        """The set's own splits, or the test split drawn from its images."""
        found = {split: content(self.name, part, self.resolution) for split, part in self._opened().items()}
        train = found["train"]
        self.class_names = train.names
        self.num_classes = max(len(train.names), 1 + max(label for part in found.values() for label in part.labels))
        images: dict[str, LabelledImages] = {split: self._images(part) for split, part in found.items()}
        if "val" in found and self.split.fold_validation:
            train = joined(train, found["val"])
        images["train"] = self._images(train, self.augment)
        if "test" not in found:
            kept, off = files.split_test(train.labels, self.test_share, self.test_seed)
            images["test"] = ChosenImages(self._images(train), off)
            images["train"] = ChosenImages(images["train"], kept)
        return images

    def _images(self, part: Content, augment: bool = False) -> LabelledImages:
        if isinstance(part.images, list):
            return files.StoredImages(map(files.Stored, part.images), part.labels, self.resolution, augment)
        return (ShiftedImages if augment else TensorImages)(part.images, torch.tensor(part.labels))

    def _opened(self) -> dict[Split, Any]:
        """Torchvision's data sets; a UserError that says what belongs where, if they are not there."""
        read = partial(opened, self.name, self.root, self.options or {})
        mend = SETS[self.name].mend(self.root)
        try:
            return read(False)
        except Exception as error:  # of files that are off torchvision raises anything
            if isinstance(error, ModuleNotFoundError):
                raise UserError(
                    f"{self.name} needs a package that is not installed: pip install {error.name}"
                ) from error
            if not self.download:
                raise UserError(
                    f"{self.name} is not in {self.root}/ and download is false, which unpacks nothing; {mend}"
                ) from error
        return files.downloaded(self.name, self.root, read, mend)


def check_name(name: str) -> None:
    """Raise a UserError with the nearest names unless it is that of a set."""
    if name in SETS:
        return
    small = {one.lower(): one for one in SETS}
    near = [small[one] for one in get_close_matches(name.lower(), small, cutoff=0.5)]
    if name in datasets.__all__:
        raise UserError(
            f"data.name {name}: not a set of one label an image that is read here; these are: {', '.join(SETS)}"
        )
    what = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(SETS)}"
    raise UserError(f"data.name {name} is no classification set of torchvision; {what}")
