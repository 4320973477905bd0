"""The classification sets of torchvision: how each names its splits, where its files belong, and how it is read."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from igpt.data import Resolution, Split, UserError
from igpt_datamodules.augment import resize_all

Pairs = list[tuple[str, Any]]  # path of a file and its label


class Content(NamedTuple):
    """The images of a split, paths of files or uint8 `(N, 3, R, R)`, their labels, and the names of all classes."""

    images: list[str] | Tensor
    labels: list[int]
    names: tuple[str, ...]


class VisionSet(NamedTuple):
    """What is to be known of a set beyond its name.

    Args:
        folder: below the root, where torchvision keeps its files.
        files: what belongs there: torchvision unpacks it, as it does what it has fetched.
        splits: arguments that give each split; "train" alone where the set has no test split.
        options: arguments that are the user's to change, and what they are if left out.
    """

    folder: str
    files: str
    splits: dict[Split, dict[str, Any]]
    options: Mapping[str, Any] = MappingProxyType({})

    def mend(self, root: str) -> str:
        """What to do where the files are missing."""
        place = Path(root) / self.folder
        return f"put {self.files} into {place}/, or name another folder with --data.init_args.root"


def splits(**names: str) -> dict[Split, dict[str, Any]]:
    """Splits that torchvision takes as `split`."""
    return {name: {"split": given} for name, given in names.items()}  # type: ignore[misc]


FLAG: dict[Split, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
TWO = splits(train="train", test="test")
THREE = splits(train="train", val="val", test="test")
NO_TEST: dict[Split, dict[str, Any]] = {"train": {}}
IDX = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
QIDX = ", ".join(f"qmnist-{part}.gz" for part in (
    "train-images-idx3-ubyte", "train-labels-idx2-int", "test-images-idx3-ubyte", "test-labels-idx2-int",
))  # fmt: skip
SIGNS = "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip, GTSRB_Final_Test_GT.zip"
PLACES = (
    "filelist_places365-standard.tar, train_large_places365standard.tar, val_large.tar (small: train_256_..., val_256)"
)

SETS = {
    "CIFAR10": VisionSet("", "cifar-10-python.tar.gz", FLAG),
    "CIFAR100": VisionSet("", "cifar-100-python.tar.gz", FLAG),
    "Caltech101": VisionSet("caltech101", "caltech-101.zip", NO_TEST),
    "Caltech256": VisionSet("caltech256", "256_ObjectCategories.tar", NO_TEST),
    "CLEVRClassification": VisionSet("clevr", "CLEVR_v1.0.zip", splits(train="train", test="val")),
    "Country211": VisionSet("", "country211.tgz", splits(train="train", val="valid", test="test")),
    "DTD": VisionSet("dtd", "dtd-r1.0.1.tar.gz", THREE, {"partition": 1}),
    "EMNIST": VisionSet("EMNIST/raw", "gzip.zip", FLAG, {"split": "balanced"}),
    "EuroSAT": VisionSet("eurosat", "EuroSAT.zip", NO_TEST),
    "FER2013": VisionSet("fer2013", "fer2013.csv or icml_face_data.csv", TWO),
    "FGVCAircraft": VisionSet("", "fgvc-aircraft-2013b.tar.gz", THREE, {"annotation_level": "variant"}),
    "FashionMNIST": VisionSet("FashionMNIST/raw", IDX, FLAG),
    "Flowers102": VisionSet("flowers-102", "102flowers.tgz, imagelabels.mat, setid.mat", THREE),
    "Food101": VisionSet("", "food-101.tar.gz", TWO),
    "GTSRB": VisionSet("gtsrb", SIGNS, TWO),
    "INaturalist": VisionSet(
        "", "2021_train.tgz, 2021_valid.tgz", {"train": {"version": "2021_train"}, "test": {"version": "2021_valid"}}
    ),
    "Imagenette": VisionSet("", "imagenette2.tgz (or -320, -160)", splits(train="train", test="val"), {"size": "full"}),
    "KMNIST": VisionSet("KMNIST/raw", IDX, FLAG),
    "MNIST": VisionSet("MNIST/raw", IDX, FLAG),
    "Omniglot": VisionSet("omniglot-py", "images_background.zip", NO_TEST),
    "OxfordIIITPet": VisionSet(
        "oxford-iiit-pet", "images.tar.gz, annotations.tar.gz", splits(train="trainval", test="test")
    ),
    "Places365": VisionSet("", PLACES, splits(train="train-standard", test="val"), {"small": False}),
    "QMNIST": VisionSet("QMNIST/raw", QIDX, FLAG),
    "RenderedSST2": VisionSet("", "rendered-sst2.tgz", THREE),
    "SEMEION": VisionSet("", "semeion.data", NO_TEST),
    "STL10": VisionSet("", "stl10_binary.tar.gz", TWO),
    "SUN397": VisionSet("", "SUN397.tar.gz", NO_TEST),
    "SVHN": VisionSet("", "train_32x32.mat, test_32x32.mat", TWO),
    "StanfordCars": VisionSet("stanford_cars", "cars_train/, cars_test/, devkit/, cars_test_annos_withlabels.mat", TWO),
    "USPS": VisionSet("", "usps.bz2, usps.t.bz2", FLAG),
}


def opened(name: str, root: str, options: dict[str, Any], fetch: bool) -> dict[Split, Any]:
    """Torchvision's data set of every split; where it takes a loader, one that gives paths and decodes nothing."""
    kind, known = getattr(datasets, name), SETS[name]
    more: dict[str, Any] = {"download": fetch} if takes(kind, "download") else {}
    if takes(kind, "loader"):
        more["loader"] = str
    return {split: kind(root, **dict(known.options) | options | given | more) for split, given in known.splits.items()}


def takes(kind: type, argument: str) -> bool:
    """Whether a class, or one that it passes its arguments on to, has an argument of this name."""
    return any(argument in signature(base.__init__).parameters for base in kind.__mro__)  # type: ignore[misc]


def content(name: str, part: Any, resolution: Resolution) -> Content:
    """The images, labels and classes of one of torchvision's data sets, without decoding a file.

    Files are in the order of their paths, on every machine the same; images in memory are brought to the resolution.

    Raises:
        UserError: images have no labels.
    """
    read = READ.get(name, items if takes(type(part), "loader") else None)
    images: list[str] | Tensor
    if read is None:
        images, labels = in_memory(part)
        images = resize_all(images, resolution).expand(-1, 3, -1, -1).contiguous()
    else:
        pairs = sorted(read(part))
        images, labels = [path for path, _ in pairs], [label for _, label in pairs]
    if None in labels:
        raise UserError(f"data.name {name}: images without labels; {SETS[name].mend(part.root)}")
    if name == "Omniglot":  # whose labels follow the order in which the system lists folders
        characters = ["/".join(Path(path).parts[-3:-1]) for path in images]
        places = {name: label for label, name in enumerate(sorted(set(characters)))}
        return Content(images, [places[one] for one in characters], tuple(places))
    labels = [int(label) for label in labels]
    return Content(images, labels, names_of(part) or tuple(map(str, range(max(labels) + 1))))


def joined(one: Content, other: Content) -> Content:
    """The files of two splits, such as those to train and to validate on, as one."""
    assert isinstance(one.images, list)
    assert isinstance(other.images, list)  # no set in memory has a validation split
    return Content(one.images + other.images, one.labels + other.labels, one.names)


def names_of(part: Any) -> tuple[str, ...]:
    """The names of the classes by label, as torchvision has them; none where it has none."""
    known = next(filter(None, (getattr(part, name, ()) for name in ("classes", "categories", "all_categories"))), ())
    return tuple(name if isinstance(name, str) else name[0] for name in known)


def items(part: Any) -> Pairs:
    """Paths and labels of a data set whose loader gives paths."""
    return [part[index] for index in range(len(part))]


def unread(part: Any) -> Pairs:
    """The same of one that opens files and leaves them unread."""
    found = []
    for index in range(len(part)):
        image, label = part[index]
        with image:
            found.append((image.filename, label))
    return found


def pets(part: Any) -> Pairs:
    """The same of one that would decode them."""
    return list(zip(map(str, part._images), part._labels, strict=True))


def signs(part: Any) -> Pairs:
    """The same of another."""
    return list(part._samples)


# Sets without a loader. Names that begin with _ are torchvision's own (0.26 to 0.29); a test of each set holds them.
READ: dict[str, Callable[[Any], Pairs]] = {
    "Caltech101": unread, "Caltech256": unread, "GTSRB": signs, "OxfordIIITPet": pets,
}  # fmt: skip


def in_memory(part: Any) -> tuple[Tensor, list[Any]]:
    """Images uint8 `(N, 1 or 3, H, W)` and labels of a data set that holds all of them in memory."""
    if not hasattr(part, "data"):
        pairs = items(part)
        return torch.from_numpy(np.stack([image for image, _ in pairs]))[:, None], [label for _, label in pairs]
    data = torch.as_tensor(part.data)
    labels = torch.as_tensor(part.targets if hasattr(part, "targets") else part.labels)
    if data.ndim == 3:
        data = data[:, None]
    elif data.shape[1] != 3:
        data = data.permute(0, 3, 1, 2)
    if labels.ndim == 2:  # QMNIST says more of a digit than its class
        labels = labels[:, 0]
    return data, labels.tolist()
