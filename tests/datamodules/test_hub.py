"""`HuggingFace` on files that the tests write; nothing comes from a network."""

import io
import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from igpt.data import SplitOptions
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import HuggingFace
from tests.conftest import small_model

datasets = pytest.importorskip("datasets")
SIDE, COUNT = 8, 40
MODES = ("RGB", "L", "RGBA")


def png(seed, mode="RGB"):
    """A picture of one's own, and what is to be seen of it on white."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] > 127, 255, 0)
    image = Image.fromarray(pixels).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    paper = Image.new("RGBA", image.size, "white")
    return stream.getvalue(), np.asarray(Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB"))


def cells(count=COUNT, first=0, modes=MODES):
    """Encoded pictures as a column holds them."""
    return [{"bytes": png(first + seed, modes[seed % len(modes)])[0], "path": None} for seed in range(count)]


def write(path, **columns):
    """A parquet file without a word about what its columns mean, as any program writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def animals(tmp_path):
    """Grey, coloured and transparent pictures of two classes that are called by strings."""
    return write(tmp_path / "animals.parquet", image=cells(), label=["dog", "cat"] * (COUNT // 2))


def data_of(path, **more):
    return HuggingFace(str(path), **{"resolution": SIDE, "batch_size": 4} | more)


def shown(data, *splits):
    """Pixels and class of every image of some splits."""
    found = [data.images(split)[index] for split in splits for index in range(data.size(split))]
    return {(image.permute(1, 2, 0).numpy().tobytes(), data.class_names[label]) for image, label in found}


def refused(act):
    """The one line that is said."""
    with pytest.raises(UserError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_parquet_file_keeps_the_contract(animals):
    check_data_module(lambda: data_of(animals))


def test_every_picture_is_there_under_its_class_grey_and_transparent_ones_too(animals):
    data = data_of(animals)
    assert shown(data, "train", "val", "test") == {
        (png(seed, MODES[seed % 3])[1].tobytes(), ("dog", "cat")[seed % 2]) for seed in range(COUNT)
    }
    assert data.class_names == ("cat", "dog")
    kept = {pixels for pixels, _ in shown(data, "train")}
    there = sum(png(seed, "RGBA")[1].tobytes() in kept for seed in range(2, COUNT, 3))
    assert data.transparent() == (there, "white")


def test_a_test_split_is_drawn_by_class_and_the_same_for_every_seed(animals):
    data = data_of(animals, test_share=0.25)
    assert [data.size(name) for name in ("train", "val", "test")] == [27, 3, 10]
    assert torch.as_tensor(data.images("test").labels).sum() == 5
    assert shown(data_of(animals, test_share=0.25, seed=3), "test") == shown(data, "test")
    assert shown(data_of(animals, test_share=0.25, test_seed=3), "test") != shown(data, "test")


@pytest.fixture
def own_splits(tmp_path):
    """A folder of `save_to_disk` with classes in an order of their own and all three splits."""
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["wolf", "ant"])})
    parts = {
        name: datasets.Dataset.from_dict({"picture": cells(12, first), "kind": [0, 1] * 6}, features=features)
        for name, first in (("train", 0), ("validation", 100), ("test", 200))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_sets_own_splits_and_classes_are_kept(own_splits):
    data = data_of(own_splits)
    check_data_module(lambda: data_of(own_splits))
    assert shown(data, "val") == {
        (png(100 + seed, MODES[seed % 3])[1].tobytes(), ("wolf", "ant")[seed % 2]) for seed in range(12)
    }
    assert data.class_names == ("wolf", "ant")
    assert data.identity()["validation"] == "own"
    folded = data_of(own_splits, split=SplitOptions(fold_validation=True))
    assert shown(folded, "train") == shown(data, "train", "val")
    assert folded.identity() == data.identity()


def test_splits_are_those_that_are_named(own_splits):
    data = data_of(own_splits, train_split="test", test_split="validation")
    assert shown(data, "test") == shown(data_of(own_splits), "val")
    assert shown(data, "train", "val") == shown(data_of(own_splits), "test")
    assert "has train, validation, test" in refused(data_of(own_splits, test_split="dev").setup)
    assert "twice" in refused(data_of(own_splits, train_split="test", test_split="test").setup)


def test_a_folder_of_parquet_files_and_one_of_class_folders_are_read(tmp_path):
    write(tmp_path / "two" / "train.parquet", image=cells(20), label=list(range(10)) * 2)
    write(tmp_path / "two" / "test.parquet", image=cells(10, 100), label=list(range(10)))
    data = data_of(tmp_path / "two")
    assert [data.size(name) for name in ("train", "val", "test")] == [18, 2, 10]
    assert data.class_names == tuple("0123456789")
    for name in ("ant", "wolf"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for seed in range(10):
            (tmp_path / "tree" / name / f"{seed}.png").write_bytes(png(seed + 50 * (name == "ant"))[0])
    data = data_of(tmp_path / "tree")
    assert shown(data, "train", "val", "test") == {
        (png(seed + 50 * (name == "ant"))[1].tobytes(), name) for name in ("ant", "wolf") for seed in range(10)
    }


@pytest.mark.parametrize(("columns", "options", "words"), [
    ({"a": "pictures", "b": "pictures", "label": "words"}, {}, "image_column: x.parquet has a, b, label; name"),
    ({"a": "pictures", "kind": "words"}, {}, "label_column: x.parquet has a, kind; name"),
    ({"a": "pictures", "label": "words"}, {"image_column": "c"}, "image_column c is no column: x.parquet has a, label"),
    ({"a": "pictures", "label": "words"}, {"label_column": "a"}, "no classes"),
    ({"a": "pictures", "label": "numbers"}, {}, "label holds Value('float64'), no classes"),
    ({"a": "pictures", "label": "numbers"}, {"image_column": "label", "labels": False}, "no pictures"),
    ({"a": "pictures", "label": "nothing"}, {}, "has no labels in train"),
])  # fmt: skip
def test_what_no_column_says_is_one_line_that_names_the_columns(tmp_path, monkeypatch, columns, options, words):
    monkeypatch.chdir(tmp_path)
    made = {"pictures": cells(6), "words": ["a", "b"] * 3, "numbers": [0.5] * 6, "nothing": pa.nulls(6, pa.string())}
    write(tmp_path / "x.parquet", **{name: made[kind] for name, kind in columns.items()})
    assert words in refused(data_of("x.parquet", **options).setup)


def test_bytes_without_paths_are_pictures_and_pictures_need_no_labels(tmp_path):
    raw = [cell["bytes"] for cell in cells(20)]
    data = data_of(write(tmp_path / "raw.parquet", shot=raw, id=list(range(20))), labels=False)
    check_data_module(lambda: data_of(tmp_path / "raw.parquet", labels=False))
    assert data.images("train")[0][0].shape == (3, SIDE, SIDE)
    assert data.num_classes == 0
    assert "labels false" in refused(lambda: data_of("x", labels=False, label_column="y"))


def test_a_class_that_training_has_not_is_refused(tmp_path):
    write(tmp_path / "two" / "train.parquet", image=cells(8), label=["a", "b"] * 4)
    write(tmp_path / "two" / "test.parquet", image=cells(3), label=["a", "b", "c"])
    assert "class 'c' of test is not among those of train" in refused(data_of(tmp_path / "two").setup)


def test_a_split_without_the_columns_of_train_is_refused(own_splits):
    sets = datasets.load_from_disk(own_splits)
    for column, words in (
        ("kind", "has no labels in test"),
        ("picture", "picture is no column of test, which has kind"),
    ):
        other = own_splits.parent / column
        datasets.DatasetDict(train=sets["train"], test=sets["test"].remove_columns(column)).save_to_disk(other)
        assert words in refused(data_of(other).setup)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Forty pictures, one of which is cut in half and one missing."""
    monkeypatch.chdir(tmp_path)
    some = cells()
    some[7]["bytes"] = some[7]["bytes"][:80]
    some[8] = None
    return write(tmp_path / "broken.parquet", image=some, label=["a", "b"] * (COUNT // 2))


def test_a_broken_picture_ends_the_run_when_its_turn_comes_or_is_left_out(broken, capsys):
    data = data_of(broken)
    data.setup()
    line = refused(lambda: shown(data, "train", "val", "test"))
    assert line.startswith("image train[7]: truncated")
    left = data_of(broken, on_error="skip", max_bad_share=0.1)
    left.prepare_data()
    assert [name for name, _ in left.skipped] == ["train[7]", "train[8]"]
    assert len(shown(left, "train", "val", "test")) == COUNT - 2
    assert "2 skipped: 1 no picture, 1 truncated; first: train[7] (truncated)" in capsys.readouterr().out
    assert "more than max_bad_share 0.01" in refused(data_of(broken, on_error="skip", max_bad_share=0.01).setup)


def test_the_check_lists_broken_rows(broken, igpt):
    code, out, _ = igpt("check", "--data", "HuggingFace", "--data.path", "broken.parquet", "--workers", 1,
                        "--data.on_error", "skip", "--data.resolution", SIDE)  # fmt: skip
    assert code == 2
    assert "image train[7]: truncated" in out
    assert "image train[8]: no picture" in out


def test_images_are_pickled_for_loader_processes(own_splits):
    images = data_of(own_splits).images("train")
    sent = pickle.dumps(images)
    assert len(sent) < 20_000  # the table itself stays on disk
    again = pickle.loads(sent)
    assert all(torch.equal(again[index][0], images[index][0]) for index in range(len(images)))


def test_what_is_neither_here_nor_on_the_hub_is_one_line(tmp_path):
    assert "not to be had from the hub (Couldn't reach 'a/b' on the Hub" in refused(data_of("a/b").setup)
    assert "is no folder or file here" in refused(data_of(tmp_path / "no.parquet").setup)
    assert "leave it out" in refused(data_of(write(tmp_path / "x.parquet", a=[1]), revision="main").setup)
    assert "leave it out" in refused(data_of(tmp_path / "x.parquet", name="plain").setup)


def test_no_code_that_comes_with_data_is_executed(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    refused(data_of(folder).setup)
    refused(data_of(folder / "theirs.py").setup)
    assert not (tmp_path / "owned").exists()


def test_without_the_package_one_line_says_what_to_install(animals, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'igpt[datasets]'" in refused(data_of(animals).setup)


def test_from_a_parquet_file_to_a_probe(animals, tmp_path, igpt, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--data", "HuggingFace", "--data.path", "animals.parquet", "--data.resolution", SIDE)
    code, out, err = igpt("palette", *words, "--colors", 17, "--out", "animals.npy")
    assert code == 0, err
    assert "images are transparent in places; laid on white" in out
    (tmp_path / "mine.yaml").write_text(small_model("animals.npy"))
    given = (
        "--data.batch_size",
        8,
        "--data.num_workers",
        1,
        "--trainer.max_steps",
        2,
        "--trainer.val_check_interval",
        2,
    )
    quick = ("--trainer.log_every_n_steps", 1, "--trainer.accelerator", "cpu", "--samples.num", 0)
    code, _, err = igpt("fit", "--config", "mine.yaml", *words, *given, *quick, "--samples.completions", 0)
    assert code == 0, err
    code, _, err = igpt("probe", "--ckpt", "runs/mine")
    assert code == 0, err
    record = json.loads((tmp_path / "runs/mine/probe/probe.json").read_text())
    assert record["data"]["init_args"]["path"] == "animals.parquet"
    assert record["identity"]["root"] == "animals.parquet"
    assert record["identity"]["images"] == {"test": 4, "train": 36}
