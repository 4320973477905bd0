import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from igpt.data import ImageDataModule, SplitOptions, TensorImages, rng_of, stratified_split
from igpt.system.errors import UserError


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

    def __init__(
        self, count: int = 50, batch_size: int = 8, seed: int = 0, split: SplitOptions = SplitOptions()
    ) -> None:
        super().__init__(resolution=2, batch_size=batch_size, seed=seed, split=split)
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


def batches(loader, count):
    """The next so many batches, over the ends of epochs, as a trainer takes them."""
    taken = []
    while len(taken) < count:
        taken += [images[:, 0, 0, 0].tolist() for images, _ in islice(loader, count - len(taken))]
    return taken


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_goes_on_behind_the_last_batch_taken_whatever_was_fetched_ahead(workers):
    def loader():
        data = Numbered()
        data.num_workers = workers
        return data.train_dataloader()

    whole = batches(loader(), 13)  # an epoch is 5 batches
    for taken in (0, 2, 5, 7, 10):
        first, second = loader(), loader()
        before = batches(first, taken)
        iter(second)  # made and thrown away, as a trainer does between epochs
        second.load_state_dict(first.state_dict())
        assert before + batches(second, 13 - taken) == whole


def test_the_place_is_kept_in_images_so_that_another_number_of_processes_can_go_on():
    def taken(batch_size, world_size, steps, state=None):
        """The images of each step, of all processes together, and the place afterwards."""
        data, loaders = Numbered(count=54, batch_size=batch_size), []
        for rank in range(world_size):
            place = SimpleNamespace(root_device=torch.device("cpu"))
            data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, strategy=place)
            loaders.append(data.train_dataloader())
            loaders[-1].load_state_dict(state or {"epoch": 0, "images": 0})
        parts = [batches(loader, steps) for loader in loaders]
        assert loaders[0].state_dict() == loaders[-1].state_dict()
        return [sorted(index for part in step for index in part) for step in zip(*parts, strict=True)], loaders[
            0
        ].state_dict()

    alone, place = taken(16, 1, 7)
    assert place == {"epoch": 2, "images": 16}
    before, place = taken(16, 1, 4)
    after, _ = taken(4, 4, 3, place)
    assert before + after == alone


def test_keys_of_randomness_that_differ_in_length_alone_differ():
    keys = [(), (0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2, 0, 0, 0, 0), (2, 0, 0, 0, 0, 0)]
    assert len({rng_of(*key).initial_seed() for key in keys}) == len(keys)


class Shifted(TensorImages):
    """Augments by adding a random number."""

    augments = True

    def draw(self, index, rng):
        image, label = self[index]
        return image + torch.randint(1000, (1,), generator=rng).to(torch.uint8), label


def test_augmentation_depends_on_seed_epoch_and_index_and_not_on_workers():
    class Augmented(Numbered):
        def load(self):
            loaded = super().load()
            return {**loaded, "train": Shifted(loaded["train"].images, loaded["train"].labels)}

    def passes(workers, seed=0):
        data = Augmented(seed=seed)
        data.num_workers = workers
        loader = data.train_dataloader()
        return [order(loader), order(loader)]

    first, second = passes(0)
    assert first != second
    assert passes(2) == [first, second]
    assert passes(0, seed=1) != [first, second]
    assert order(Augmented().loader("val")) == order(Numbered().loader("val"))


def test_training_drops_the_incomplete_batch_and_evaluation_does_not():
    data = Numbered()
    assert len(order(data.train_dataloader())) == 40
    assert len(order(data.loader("train"))) == 45
    assert data.steps_per_epoch() == 5
    assert data.steps_per_epoch(world_size=2, accumulate=2) == 1


def test_a_batch_larger_than_the_split_is_one_line_with_both_numbers():
    with pytest.raises(UserError, match=r"batch_size 64 exceeds the train split of 45"):
        Numbered(batch_size=64).train_dataloader()


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"split": {"val_share": 0.0}}, {"split": {"val_share": 1.0}}, {"split": {"val_share": 0.001}}],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=r"batch_size|val_share"):
        Numbered(**wrong).setup()


def test_folding_gives_validation_back_to_training_and_still_validates():
    data = Numbered(split=SplitOptions(fold_validation=True))
    assert sorted(order(data.loader("train"))) == list(range(50))
    assert order(data.loader("val")) == order(Numbered().loader("val"))


def test_low_data_subsets_have_so_many_of_each_class_and_follow_their_seed():
    subsets = [Numbered(split=SplitOptions(labels_per_class=4, subset_seed=seed)) for seed in (0, 0, 1)]
    chosen = [order(data.loader("train")) for data in subsets]
    assert sorted(index % 2 for index in chosen[0]) == [0] * 4 + [1] * 4
    assert chosen[0] == chosen[1] == subsets[0].train_indices
    assert chosen[0] != chosen[2]
    assert not set(chosen[0]) & set(order(subsets[0].loader("val")))


def test_more_labels_than_a_class_has_is_one_line():
    with pytest.raises(UserError, match="labels_per_class 40"):
        Numbered(split=SplitOptions(labels_per_class=40)).setup()


def test_the_spec_builds_an_equal_data_module():
    spec = Numbered(count=30, seed=4).spec()
    assert spec["class_path"].endswith("Numbered")
    split = {"val_share": 0.1, "fold_validation": False, "labels_per_class": None, "subset_seed": 0}
    assert spec["init_args"] == {"count": 30, "batch_size": 8, "seed": 4, "split": split}


def test_a_constructor_argument_that_is_not_kept_is_named():
    class Forgetful(Numbered):
        def __init__(self, secret: int = 3) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="secret"):
        Forgetful().spec()


LEFT = """
from igpt_datamodules import Digits
left = iter(Digits(num_workers=1).train_dataloader())
next(left)
"""


def test_a_process_ends_though_a_loader_is_left_in_the_middle():
    subprocess.run([sys.executable, "-c", LEFT], check=True, timeout=60)
