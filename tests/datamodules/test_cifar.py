import pickle

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import CIFAR10, CIFAR100


@pytest.mark.parametrize("kind", [CIFAR10, pytest.param(CIFAR100, marks=pytest.mark.slow)])
def test_cifar_files_keep_the_contract_and_the_published_sizes(kind, cifar_root):
    check_data_module(lambda: kind(root=str(cifar_root), download=False))
    data = kind(root=str(cifar_root), download=False)
    assert [data.size(name) for name in ("train", "val", "test")] == [45_000, 5_000, 10_000]
    labels = torch.tensor([label for _, batch in data.loader("val") for label in batch.tolist()])
    assert (torch.bincount(labels) == 5_000 // kind.num_classes).all()


def test_a_cifar_image_is_read_channel_by_channel_in_raster_order(cifar_root):
    raw = pickle.loads((cifar_root / "cifar-10-batches-py" / "test_batch").read_bytes())
    image, label = CIFAR10(root=str(cifar_root), download=False).images("test")[3]
    np.testing.assert_array_equal(image.numpy(), raw["data"][3].reshape(3, 32, 32))
    assert label == raw["labels"][3]


def test_cifar_at_another_resolution(cifar_root):
    image, _ = CIFAR10(root=str(cifar_root), download=False, resolution=16).images("test")[0]
    assert image.shape == (3, 16, 16)


def test_a_missing_archive_is_one_line_that_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError) as error:
        CIFAR10(root=str(tmp_path / "nowhere"), download=False).prepare_data()
    assert "cifar-10-python.tar.gz" in str(error.value)
    assert "nowhere" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_changed_file_is_not_unpickled(cifar_root, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (cifar_root / folder.name).iterdir():
        (folder / file.name).symlink_to(file)
    CIFAR10(root=str(tmp_path), download=False).prepare_data()
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    with pytest.raises(UserError):
        CIFAR10(root=str(tmp_path), download=False).prepare_data()
    assert not (tmp_path / "owned").exists()


def test_fine_tuning_shifts_and_mirrors_training_images_and_no_others(cifar_root):
    plain, shifted = (CIFAR10(root=str(cifar_root), download=False, augment=augment) for augment in (False, True))
    assert shifted.images("train").augments
    assert not plain.images("train").augments
    (image, label), (drawn, same) = shifted.images("train")[7], shifted.images("train").draw(7, rng_of(0, 1, 7))
    assert label == same
    assert not torch.equal(image, drawn)
    for name in ("train", "val", "test"):
        assert torch.equal(next(iter(shifted.loader(name)))[0], next(iter(plain.loader(name)))[0])
    assert len(next(iter(shifted.train_dataloader()))[0]) == 128
