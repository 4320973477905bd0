import numpy as np
import pytest
import torch

from igpt.data import ImageDataModule, TensorImages, stratified_split
from igpt.errors import UserError


@pytest.mark.parametrize(("share", "count"), [(0.1, 100), (0.25, 37), (0.1, 1797), (0.04, 1301)])
def test_a_split_has_the_exact_size_and_every_class_its_share(share, count):
    labels = torch.randint(7, (count,), generator=torch.Generator().manual_seed(0))
    kept, off = stratified_split(labels, share, seed=3)
    assert len(off) == round(share * count)
    assert sorted(kept + off) == list(range(count))
    for value in range(7):
        members = int((labels == value).sum())
        assert abs(int((labels[off] == value).sum()) - share * members) < 1


def test_a_split_depends_on_the_seed_and_is_the_same_on_every_machine():
    labels = np.arange(40) % 4
    assert stratified_split(labels, 0.2, 0)[1] == [9, 16, 18, 19, 22, 23, 24, 37]
    assert stratified_split(labels, 0.2, 1)[1] != stratified_split(labels, 0.2, 0)[1]


class Numbered(ImageDataModule):
    """Images that carry their own index, so that order can be seen."""

    num_classes = 2

    def __init__(self, count: int = 50, batch_size: int = 8, seed: int = 0, val_share: float = 0.1) -> None:
        super().__init__(resolution=2, batch_size=batch_size, seed=seed, val_share=val_share)
        self.count = count

    def load(self):
        index = torch.arange(self.count)
        images = index.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
        return {"train": TensorImages(images, index % 2), "test": TensorImages(images[:4] + 200, index[:4] % 2)}


def order(loader):
    return [int(i) for images, _ in loader for i in images[:, 0, 0, 0]]


def test_every_training_image_is_in_exactly_one_of_train_and_val():
    data = Numbered()
    train, val = order(data.loader("train")), order(data.loader("val"))
    assert len(val) == 5
    assert sorted(train + val) == list(range(50))


def test_training_order_changes_every_epoch_and_follows_the_seed():
    loader, twin = Numbered().train_dataloader(), Numbered().train_dataloader()
    first, second = order(loader), order(loader)
    assert first != second
    assert [order(twin), order(twin)] == [first, second]
    assert order(Numbered(seed=1).train_dataloader()) != first


def test_training_drops_the_incomplete_batch_and_evaluation_does_not():
    data = Numbered()
    assert len(order(data.train_dataloader())) == 40
    assert len(order(data.loader("train"))) == 45
    assert data.steps_per_epoch() == 5
    assert data.steps_per_epoch(world_size=2, accumulate=2) == 1


def test_a_batch_larger_than_the_split_is_one_line_with_both_numbers():
    with pytest.raises(UserError, match=r"batch_size 64 exceeds the train split of 45"):
        Numbered(batch_size=64).train_dataloader()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"val_share": 0.0}, {"val_share": 1.0}, {"val_share": 0.001}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=r"batch_size|val_share"):
        Numbered(**wrong).setup()


def test_the_spec_builds_an_equal_data_module():
    spec = Numbered(count=30, seed=4).spec()
    assert spec["class_path"].endswith("Numbered")
    assert spec["init_args"] == {"count": 30, "batch_size": 8, "seed": 4, "val_share": 0.1}


def test_a_constructor_argument_that_is_not_kept_is_named():
    class Forgetful(Numbered):
        def __init__(self, secret: int = 3) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="secret"):
        Forgetful().spec()
