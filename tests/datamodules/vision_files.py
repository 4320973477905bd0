"""The files of torchvision's classification sets, in their own formats and at toy size, written by the tests."""

import bz2
import json
import pickle
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIDE = 8
COLOUR = (SIDE, SIDE, 3)


class Files:
    """Writes pictures, no two alike, and keeps what each looks like and what its class is called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, set[tuple[bytes, str]]] = defaultdict(set)
        self.rng = np.random.default_rng(0)

    def pixels(self, split: str, name: str, shape: tuple[int, ...] = COLOUR, binary: bool = False) -> np.ndarray:
        """A picture for a file that holds many."""
        made = self.rng.integers(0, 2, shape, np.uint8) * 255 if binary else self.rng.integers(0, 256, shape, np.uint8)
        self.known[split].add((np.asarray(Image.fromarray(made).convert("RGB")).tobytes(), name))
        return made

    def save(self, split: str, name: str, path: str, grey: bool = False) -> None:
        """A picture of a file of its own; a JPEG is known by what it decodes to."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        made = self.rng.integers(0, 256, (SIDE, SIDE) if grey else (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(made).save(self.root / path)
        self.known[split].add((np.asarray(Image.open(self.root / path).convert("RGB")).tobytes(), name))

    def text(self, path: str, content: str) -> None:
        """A file of text."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def bytes(self, path: str, content: bytes) -> None:
        """A file of bytes."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def idx(self, place: str, split: str, classes: list[int], names: list[str], wide: bool = False) -> None:
        """The two files of a split of the MNISTs; `wide`: with eight numbers to a label."""
        shown = [self.pixels(split, names[label], (SIDE, SIDE)) for label in classes]
        head = struct.pack(">IIII", 0x803, len(shown), SIDE, SIDE)
        self.bytes(f"{place}-images-idx3-ubyte", head + b"".join(one.tobytes() for one in shown))
        if wide:
            rows = np.array([[label, 1, 2, 3, 4, 5, 6, 7] for label in classes], ">i4")
            self.bytes(f"{place}-labels-idx2-int", struct.pack(">III", 0xC02, len(classes), 8) + rows.tobytes())
        else:
            self.bytes(f"{place}-labels-idx1-ubyte", struct.pack(">II", 0x801, len(classes)) + bytes(classes))


CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
DIGITS = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"]
LETTERS = ["N/A", *"abcdefghijklmnopqrstuvwxyz"]
TEN = list(range(10)) * 2


def fashion_mnist(files: Files) -> None:
    for split, stem in (("train", "train"), ("test", "t10k")):
        files.idx(f"FashionMNIST/raw/{stem}", split, TEN, CLOTHES)


def qmnist(files: Files) -> None:
    for split in ("train", "test"):
        files.idx(f"QMNIST/raw/qmnist-{split}", split, [0, 1, 2, 3, 4] * 3, DIGITS, wide=True)


def emnist(files: Files) -> None:
    for split in ("train", "test"):
        files.idx(f"EMNIST/raw/emnist-letters-{split}", split, [1, 2, 26] * 5, LETTERS)


def cifar10(files: Files) -> None:
    names = [f"class{label}" for label in range(10)]
    for split, batches in (("train", [f"data_batch_{part}" for part in range(1, 6)]), ("test", ["test_batch"])):
        for batch in batches:
            shown = [files.pixels(split, names[label], (32, 32, 3)).transpose(2, 0, 1).ravel() for label in TEN]
            content = pickle.dumps({"data": np.stack(shown), "labels": TEN}, protocol=2)
            files.bytes(f"cifar-10-batches-py/{batch}", content)
    files.bytes("cifar-10-batches-py/batches.meta", pickle.dumps({"label_names": names}, protocol=2))


def svhn(files: Files) -> None:
    for split in ("train", "test"):
        shown = np.stack([files.pixels(split, str(label)) for label in TEN], -1)
        written = np.array([label or 10 for label in TEN])[:, None]  # whose digit 0 is class 10
        savemat(files.root / f"{split}_32x32.mat", {"X": shown, "y": written})


def usps(files: Files) -> None:
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        lines = []
        for label in TEN:
            shown = files.pixels(split, str(label), (16, 16), binary=True).ravel()
            lines.append(f"{label + 1} " + " ".join(f"{place}:{1 if one else -1}" for place, one in enumerate(shown)))
        files.bytes(name, bz2.compress("\n".join(lines).encode()))


def semeion(files: Files) -> None:
    shown = [(label, files.pixels("all", str(label), (16, 16), binary=True).ravel() > 0) for label in TEN * 2]
    rows = [[*one.astype(int), *np.eye(10, dtype=int)[label]] for label, one in shown]
    files.text("semeion.data", "\n".join(" ".join(f"{value}.0" for value in row) for row in rows))


def fer2013(files: Files) -> None:
    lines = ["emotion,pixels,Usage"]
    for split, usage in (("train", "Training"), ("test", "PrivateTest")):
        for label in [0, 3, 6] * 5:
            shown = files.pixels(split, str(label), (48, 48))
            lines.append(f"{label},{' '.join(map(str, shown.ravel()))},{usage}")
    files.text("fer2013/fer2013.csv", "\n".join(lines))


def eurosat(files: Files) -> None:
    for name in ("Forest", "River"):
        for index in range(15):
            files.save("all", name, f"eurosat/2750/{name}/{name}_{index}.jpg")


def caltech101(files: Files) -> None:
    files.save("none", "", "caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg")
    for name in ("ant", "bass"):
        for index in range(1, 13):
            files.save("all", name, f"caltech101/101_ObjectCategories/{name}/image_{index:04d}.jpg", grey=index == 3)


def omniglot(files: Files) -> None:
    for name in ("Greek/character02", "Greek/character01", "Braille/character01"):
        for index in range(12):
            files.save("all", name, f"omniglot-py/images_background/{name}/{index:04d}.png", grey=True)
    files.bytes("omniglot-py/images_background.zip", b"")


def dtd(files: Files) -> None:
    for split in ("train", "val", "test"):
        for partition in (1, 2):
            names = [f"{name}/{split}{partition}_{index}.jpg" for name in ("banded", "woven") for index in range(6)]
            files.text(f"dtd/dtd/labels/{split}{partition}.txt", "\n".join(names))
            for name in names:
                files.save(split if partition == 2 else "none", name.partition("/")[0], f"dtd/dtd/images/{name}")


def flowers102(files: Files) -> None:
    labels, ids = [], {"trnid": [], "valid": [], "tstid": []}
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        for label in [0, 1] * 5:
            labels.append(label + 1)
            ids[key].append(len(labels))
            name = ("pink primrose", "hard-leaved pocket orchid")[label]
            files.save(split, name, f"flowers-102/jpg/image_{len(labels):05d}.jpg")
    savemat(files.root / "flowers-102" / "imagelabels.mat", {"labels": np.array(labels)})
    savemat(files.root / "flowers-102" / "setid.mat", {key: np.array(value) for key, value in ids.items()})


def pets(files: Files) -> None:
    for split, part in (("train", "trainval"), ("test", "test")):
        lines = []
        for label, (name, shown) in enumerate((("Abyssinian", "Abyssinian"), ("american_bulldog", "American Bulldog"))):
            for index in range(8):
                files.save(split, shown, f"oxford-iiit-pet/images/{name}_{part}{index}.jpg")
                lines.append(f"{name}_{part}{index} {label + 1} {label + 1} 1")
        files.text(f"oxford-iiit-pet/annotations/{part}.txt", "\n".join(lines))


def gtsrb(files: Files) -> None:
    lines = ["Filename;ClassId"]
    for label in (0, 1, 2):
        for index in range(6):
            files.save("train", str(label), f"gtsrb/GTSRB/Training/{label:05d}/{index:05d}.ppm")
            files.save("test", str(label), f"gtsrb/GTSRB/Final_Test/Images/{label}{index}.ppm")
            lines.append(f"{label}{index}.ppm;{label}")
    files.text("gtsrb/GT-final_test.csv", "\n".join(lines))


def food101(files: Files) -> None:
    for split in ("train", "test"):
        lists = {name: [f"{name}/{split}{index}" for index in range(6)] for name in ("waffles", "apple_pie")}
        files.text(f"food-101/meta/{split}.json", json.dumps(lists))
        for name, paths in lists.items():
            for path in paths:
                files.save(split, name, f"food-101/images/{path}.jpg")


def folders(place: str, splits: dict[str, str], names: dict[str, str], suffix: str):
    """Pictures in PLACE/SPLIT/CLASS/; splits and classes by the names of their folders."""

    def write(files: Files) -> None:
        for folder, split in splits.items():
            for inside, name in names.items():
                for index in range(6):
                    files.save(split, name, f"{place}{folder}/{inside}/{index}{suffix}")

    return write


def aircraft(files: Files) -> None:
    place = "fgvc-aircraft-2013b/data"
    files.text(f"{place}/families.txt", "Boeing 737\nDHC-8\n")
    for split in ("train", "val", "test"):
        lines = []
        for index, name in enumerate(["Boeing 737", "DHC-8"] * 5):
            files.save(split, name, f"{place}/images/{split}{index}.jpg")
            lines.append(f"{split}{index} {name}")
        files.text(f"{place}/images_family_{split}.txt", "\n".join(lines))


def clevr(files: Files) -> None:
    for folder, split in (("train", "train"), ("val", "test")):
        scenes = []
        for index in range(12):
            count = 3 + index % 2
            files.save(split, str(count), f"clevr/CLEVR_v1.0/images/{folder}/{index:03d}.png")
            scenes.append({"image_filename": f"{index:03d}.png", "objects": [{}] * count})
        files.text(f"clevr/CLEVR_v1.0/scenes/CLEVR_{folder}_scenes.json", json.dumps({"scenes": scenes}))


def sun397(files: Files) -> None:
    names = ("abbey", "access_road")
    files.text("SUN397/ClassName.txt", "".join(f"/a/{name}\n" for name in names))
    for name in names:
        for index in range(12):
            files.save("all", name, f"SUN397/a/{name}/sun_{index}.jpg")


THREE = {"train": "train", "valid": "val", "test": "test"}
WRITERS = {
    "FashionMNIST": fashion_mnist, "QMNIST": qmnist, "EMNIST": emnist, "CIFAR10": cifar10, "SVHN": svhn, "USPS": usps,
    "SEMEION": semeion, "FER2013": fer2013, "EuroSAT": eurosat, "Caltech101": caltech101, "Omniglot": omniglot,
    "DTD": dtd, "Flowers102": flowers102, "OxfordIIITPet": pets, "GTSRB": gtsrb, "Food101": food101,
    "FGVCAircraft": aircraft, "CLEVRClassification": clevr, "SUN397": sun397,
    "Country211": folders("country211/", THREE, {"AT": "AT", "ZA": "ZA"}, ".jpg"),
    "RenderedSST2": folders("rendered-sst2/", THREE, {"negative": "negative", "positive": "positive"}, ".png"),
    "Imagenette": folders("imagenette2-160/", {"train": "train", "val": "test"},
                          {"n01440764": "tench", "n03888257": "parachute"}, ".jpeg"),
}  # fmt: skip
OPTIONS = {"EMNIST": {"split": "letters"}, "DTD": {"partition": 2}, "FGVCAircraft": {"annotation_level": "family"},
           "Imagenette": {"size": "160px"}}  # fmt: skip
SIDES = {"CIFAR10": 32, "USPS": 16, "SEMEION": 16, "FER2013": 48}
CHECKED = ("cifar", "svhn", "semeion", "fer2013", "flowers102", "omniglot")  # modules that know their files by md5
