"""What tells data from other data: labels, classes, pictures and seeds, and nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

import igpt as api
from igpt.data import ImageDataModule, SplitOptions, TensorImages
from igpt_datamodules import Digits, ImageFolder, SamplePhotos, TokenShards
from tests.datamodules.pictures import encoded, picture


def compared(data: ImageDataModule) -> dict[str, object]:
    """The part of an identity that has to be equal."""
    return {name: value for name, value in data.identity().items() if name != "root"}


def test_how_a_run_uses_its_data_plays_no_part() -> None:
    same = compared(Digits())
    assert compared(Digits(batch_size=7)) == same
    assert compared(Digits(split=SplitOptions(fold_validation=True))) == same
    assert compared(Digits(split=SplitOptions(labels_per_class=4, subset_seed=3))) == same


@pytest.mark.parametrize("other", [
    {"seed": 1}, {"split": SplitOptions(val_share=0.2)}, {"resolution": 16},
])  # fmt: skip
def test_other_splits_and_sizes_are_other_data(other: dict[str, object]) -> None:
    assert compared(Digits(**other)) != compared(Digits())  # type: ignore[arg-type]


class Made(ImageDataModule):
    """Forty images of two classes with a validation split of their own."""

    num_classes = 2
    class_names = ("cat", "dog")

    def __init__(self, split: SplitOptions = SplitOptions()) -> None:
        super().__init__(resolution=2, split=split)
        self.pictures = torch.arange(40).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).clone()
        self.labels = torch.arange(40) % 2

    def load(self) -> dict[str, TensorImages]:
        """The first thirty train, five validate, five test."""
        last = 35 if self.split.fold_validation else 30
        places = {"train": slice(last), "val": slice(30, 35), "test": slice(35, 40)}
        return {name: TensorImages(self.pictures[place], self.labels[place]) for name, place in places.items()}


def relabelled(data: Made) -> None:
    data.labels[17] = 0


def renamed(data: Made) -> None:
    data.class_names = ("cat", "bird")


def repainted(data: Made) -> None:
    data.pictures[39] = 0


@pytest.mark.parametrize("change", [relabelled, renamed, repainted])
def test_another_label_name_or_picture_makes_other_data(change) -> None:  # type: ignore[no-untyped-def]
    data = Made()
    change(data)
    assert compared(data) != compared(Made())


def test_folding_is_seen_through_where_the_data_bring_their_validation_split() -> None:
    assert compared(Made(SplitOptions(fold_validation=True))) == compared(Made())
    assert Made().identity()["validation"] == "own"
    assert "seed" not in str(SamplePhotos().identity())  # which cuts by column


def test_an_identity_is_the_same_on_every_machine() -> None:
    assert Digits().identity() == {
        "name": "Digits",
        "root": None,
        "resolution": 8,
        "classes": 10,
        "class_names": "14a21a638a550aa3",
        "validation": {"share": 0.1, "seed": 0},
        "images": {"test": 359, "train": 1438},
        "fingerprint": "61bfdc98368f8194",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve pictures."""
    for index in range(24):
        path = tmp_path / "a" / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(index, (12, 12)), "PNG"))
    return tmp_path / "a"


def test_a_copy_of_a_folder_is_the_same_data_and_its_root_is_told(folder: Path) -> None:
    copy = shutil.copytree(folder, folder.with_name("b"))
    one, other = (ImageFolder(root=str(root), resolution=8) for root in (folder, copy))
    assert compared(one) == compared(other)
    assert one.identity()["root"] == str(folder)


def test_a_picture_that_cannot_be_read_is_no_obstacle(folder: Path) -> None:
    whole = compared(ImageFolder(root=str(folder), resolution=8))
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert compared(ImageFolder(root=str(folder), resolution=8)) != whole


def test_shards_are_told_by_their_index_without_a_label_being_read(igpt, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    words = ["tokenize", "--data", "Digits", "--palette", "palettes/digits.npy", "--workers", 1, "--out"]
    assert igpt(*words, tmp_path / "s")[0] == 0
    data = TokenShards(folder=str(tmp_path / "s"))
    monkeypatch.setattr("igpt.data.ShardReader.all_labels", None)
    assert data.identity()["images"] == {"test": 359, "train": 1294, "val": 144}
    assert len(data.fingerprint()) == 16


def test_a_checkpoint_holds_the_identity_of_the_data_it_was_trained_on(digits_run) -> None:  # type: ignore[no-untyped-def]
    content = torch.load(digits_run.checkpoint, weights_only=True)
    assert content["igpt"]["identity"] == Digits().identity() == api.load(digits_run.checkpoint).data().identity()
