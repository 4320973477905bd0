import hashlib

import numpy as np
import pytest
import torch
from torchvision import datasets

from igpt.data import SplitOptions
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import STL10

SIDE, UNLABELLED = 96, 40


@pytest.fixture(scope="module")
def stl_files(tmp_path_factory):
    """STL-10's binary files with the published numbers of labelled images; the unlabelled ones are fewer."""
    root = tmp_path_factory.mktemp("stl")
    folder = root / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 5000), ("test", 8000), ("unlabeled", UNLABELLED)):
        shades = rng.integers(0, 256, (count, 3, 1, 1), dtype=np.uint8)
        images = np.broadcast_to(shades, (count, 3, SIDE, SIDE)).copy()
        images[:, :, 3, 0] = 255  # STL stores columns: this is the pixel at x = 3, y = 0
        images.tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            rng.permutation(np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "class_names.txt").write_text("\n".join(names))
    return root, {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.glob("*.bin")}


@pytest.fixture
def stl(stl_files, monkeypatch):
    """`stl(...)` makes the data module on these files; torchvision checks their checksums."""
    root, sums = stl_files
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.STL10, name, [[file, sums[file]] for file, _ in getattr(datasets.STL10, name)])
    return lambda **options: STL10(root=str(root), download=False, **options)


def labels_of(data, name):
    return torch.as_tensor(data.images(name).labels)


def test_stl_files_keep_the_contract_and_the_published_sizes(stl):
    check_data_module(stl)
    data = stl()
    assert [data.size(name) for name in ("train", "val", "test")] == [4_500, 500, 8_000]
    assert (torch.bincount(labels_of(data, "val")) == 50).all()
    assert data.class_names[8] == "ship"


def test_a_pixel_of_stl_is_where_the_columns_put_it(stl):
    image, _ = stl(resolution=SIDE).images("test")[0]
    assert (image[:, 0, 3] == 255).all()
    assert image.is_contiguous()


def test_unlabelled_images_only_train(stl):
    data, plain = stl(use_unlabelled=True, augment=True), stl()
    assert [data.size(name) for name in ("train", "val", "test")] == [4_500 + UNLABELLED, 500, 8_000]
    assert int((labels_of(data, "train") == -1).sum()) == UNLABELLED
    for name in ("val", "test"):
        assert torch.equal(data.images(name)[0][0], plain.images(name)[0][0])
        assert torch.equal(labels_of(data, name), labels_of(plain, name))


def test_folding_works_with_the_unlabelled_images_too(stl):
    data = stl(use_unlabelled=True, split=SplitOptions(fold_validation=True))
    assert [data.size(name) for name in ("train", "val")] == [5_000 + UNLABELLED, 500]


def test_unlabelled_images_and_a_low_data_subset_exclude_each_other(stl):
    with pytest.raises(UserError, match="labels_per_class"):
        stl(use_unlabelled=True, split=SplitOptions(labels_per_class=4))


def test_a_missing_archive_is_one_line_that_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError) as error:
        STL10(root=str(tmp_path / "nowhere"), download=False).prepare_data()
    assert "stl10_binary.tar.gz" in str(error.value)
    assert "nowhere" in str(error.value)
    assert "\n" not in str(error.value)
