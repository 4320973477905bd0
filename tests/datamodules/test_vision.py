"""`TorchVision` on the files of its sets, each in its own format."""

import gzip
import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from igpt.data import SplitOptions, rng_of
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import CIFAR10, TorchVision
from igpt_datamodules.vision_sets import SETS
from tests.datamodules.vision_files import CHECKED, OPTIONS, SIDES, WRITERS, Files


def is_there(path, md5=None):
    return os.path.isfile(path)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the files of a set; gives these, and a maker of its data module."""
    for module in CHECKED:  # no md5
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", is_there)

    def write(name):
        files = Files(tmp_path / "data")
        files.root.mkdir()
        WRITERS[name](files)
        given = {"root": str(files.root), "resolution": SIDES.get(name, 8), "options": OPTIONS.get(name)}
        return files, lambda **more: TorchVision(name, **given | {"batch_size": 4, "download": False} | more)

    return write


def shown(data, *splits):
    """Pixels and class of every image of some splits."""
    found = [data.images(split)[index] for split in splits for index in range(data.size(split))]
    return {(image.permute(1, 2, 0).numpy().tobytes(), data.class_names[label]) for image, label in found}


@pytest.mark.parametrize("name", WRITERS)
def test_every_image_is_in_its_split_and_under_its_class(written, name):
    files, make = written(name)
    data = make()
    if "all" in files.known:  # no test split of its own
        assert shown(data, "train", "val", "test") == files.known["all"]
        assert data.size("test") == round(0.1 * len(files.known["all"]))
        assert shown(make(seed=5), "test") == shown(data, "test")
        assert shown(make(test_seed=5), "test") != shown(data, "test")
        return
    assert shown(data, "test") == files.known["test"]
    own = "val" in files.known
    assert shown(data, "train", "val") == files.known["train"] | files.known["val"]
    assert (shown(data, "val") == files.known["val"]) is own
    folded = make(split=SplitOptions(fold_validation=True))
    assert shown(folded, "train") == shown(data, "train", "val")
    assert folded.identity() == data.identity()


@pytest.mark.parametrize("name", ["FashionMNIST", "DTD", "EuroSAT"])
def test_the_contract_is_kept(written, name):
    _, make = written(name)
    check_data_module(make)


def test_no_file_is_decoded_to_learn_the_labels(written, monkeypatch):
    _, make = written("Food101")
    data = make()
    monkeypatch.setattr(Image, "open", None)
    assert sorted(torch.as_tensor(data.load()["test"].labels).tolist()) == [0] * 6 + [1] * 6


def test_cifar_by_name_is_the_data_module_of_that_name(written):
    files, make = written("CIFAR10")
    assert make().identity() == CIFAR10(root=str(files.root), download=False).identity()


def test_grey_images_become_equal_channels_of_the_size_that_is_asked_for(written):
    _, make = written("FashionMNIST")
    image, _ = make(resolution=16).images("test")[0]
    assert image.shape == (3, 16, 16)
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("name", ["FashionMNIST", "DTD"])
def test_training_images_alone_are_augmented_if_asked_for(written, name):
    _, make = written(name)
    plain, augmented = make().images("train"), make(augment=True).images("train")
    assert (plain.augments, augmented.augments) == (False, True)
    assert torch.equal(plain[1][0], augmented[1][0])
    assert any(not torch.equal(plain[1][0], augmented.draw(1, rng_of(0, epoch, 1))[0]) for epoch in range(3))
    assert torch.equal(plain.draw(1, rng_of(0, 0, 1))[0], plain[1][0])


@pytest.mark.parametrize("name", ["FashionMNIST", "OxfordIIITPet"])
def test_images_are_pickled_for_loader_processes(written, name):
    _, make = written(name)
    images = make().images("train")
    assert torch.equal(pickle.loads(pickle.dumps(images))[3][0], images[3][0])


def test_an_archive_that_lies_there_is_unpacked_without_a_network(written, monkeypatch):
    files, make = written("FashionMNIST")
    raw = files.root / "FashionMNIST" / "raw"
    sums = []
    for file in sorted(raw.iterdir()):
        archive = raw / f"{file.name}.gz"
        archive.write_bytes(gzip.compress(file.read_bytes()))
        sums.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
        file.unlink()
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
    with pytest.raises(UserError, match="download is false"):
        make().prepare_data()
    assert shown(make(download=True), "test") == files.known["test"]


def refused(make):
    """The one line that is said."""
    with pytest.raises(UserError) as error:
        make().prepare_data()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_missing_is_one_line_that_says_what_belongs_where(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    for module in ("mnist", "dtd", "svhn"):
        for how in ("download_url", "download_and_extract_archive"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.{how}", fail, raising=False)
    root = tmp_path / "nowhere"
    for name, words in (("DTD", "put dtd-r1.0.1.tar.gz into"), ("SVHN", "put train_32x32.mat, test_32x32.mat into")):
        line = refused(lambda name=name: TorchVision(name, root=str(root)))
        assert f"{words} {root / SETS[name].folder}/" in line
        assert "no network" in line
        assert not root.exists()
    line = refused(lambda: TorchVision("MNIST", root=str(root), download=False))
    assert "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz" in line


def test_test_images_without_labels_are_refused(written):
    files, make = written("FER2013")
    lines = (files.root / "fer2013" / "fer2013.csv").read_text().splitlines()
    (files.root / "fer2013" / "fer2013.csv").unlink()
    files.text("fer2013/train.csv", "\n".join(lines[:16]).replace(",Training", "").replace(",Usage", ""))
    files.text("fer2013/test.csv", "\n".join(["pixels", *(line.split(",")[1] for line in lines[16:])]))
    assert "images without labels; put fer2013.csv or icml_face_data.csv into" in refused(make)


@pytest.mark.parametrize(("name", "words"), [
    ("FashonMNIST", "nearest: FashionMNIST"), ("mnist", "nearest: MNIST"), ("xyzzy", "CIFAR10, CIFAR100"),
    ("VOCDetection", "one label an image"),
])  # fmt: skip
def test_a_name_that_is_none_is_refused_with_the_nearest(name, words):
    assert words in refused(lambda: TorchVision(name))


def test_an_option_that_a_set_does_not_take_is_refused():
    assert "it takes partition" in refused(lambda: TorchVision("DTD", options={"root": "/"}))


def test_every_set_is_one_of_torchvisions_and_takes_the_options_of_the_table():
    assert {name for name in SETS if not hasattr(datasets, name)} == set()
    assert all(np.isin(list(OPTIONS[name]), list(SETS[name].options)).all() for name in OPTIONS)
