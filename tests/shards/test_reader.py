"""Reading shards by the reader alone, against what NumPy loads; whole commands on shards are in tests/datamodules."""

import pickle

import numpy as np
import pytest

from igpt.data.shards.index import Index
from igpt.data.shards.kinds import ColorTokens
from igpt.data.shards.reader import ShardReader
from igpt.system.errors import UserError
from igpt.tokenization.writing import write_shard
from tests.shards.test_index import RESOLUTION, made

COLORS = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1], [-1, 0, 1]], dtype=np.float32)
SHOWN = np.array([[0, 1, 2], [127, 126, 125], [255, 254, 253], [3, 128, 250]], dtype=np.uint8)


def written(folder, *views, num_classes=9):
    """Shards of 4, 3, 4, ... training images, each shard with so many views, and the index."""
    folder.mkdir()
    rng, shards = np.random.default_rng(3), []
    for number, count in enumerate(views):
        images = 4 - number % 2
        tokens = rng.integers(len(SHOWN), size=(images, count, RESOLUTION**2)).astype(np.uint16)
        target = folder / f"train-{number:05d}.npy"
        shards.append(write_shard(target, np.arange(images) + number, tokens, folder))
    kind, splits = ColorTokens(COLORS, SHOWN), {"train": tuple(shards), "val": (), "test": ()}
    Index(RESOLUTION, num_classes, (), kind, splits, (), {"seed": 0}).write(folder)
    return folder


def reader(folder, *splits):
    return ShardReader(folder, Index.read(folder), splits or ("train",))


def stored(folder, *names):
    records = [np.load(folder / f"{name}.npy")[0] for name in names]
    return [np.concatenate([record[field] for record in records]) for field in ("labels", "tokens")]


def test_images_of_many_shards_come_in_the_order_that_was_asked_for(tmp_path):
    folder = written(tmp_path / "shards", 1, 1, 1)
    labels, tokens = stored(folder, "train-00000", "train-00001", "train-00002")
    data = reader(folder)
    assert len(data) == 11
    assert data.all_labels().tolist() == labels.tolist() == [0, 1, 2, 3, 1, 2, 3, 2, 3, 4, 5]
    for wanted in ([0], [10], [3, 4], [4, 3], [7, 0, 6, 10, 0, 3], []):
        found, known = data.read(wanted)
        np.testing.assert_array_equal(found, tokens[wanted, 0])
        np.testing.assert_array_equal(known, labels[wanted])
        pictures, known = data.images(wanted)
        expected = SHOWN[tokens[wanted, 0]].reshape(-1, RESOLUTION, RESOLUTION, 3).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(pictures, expected)
        np.testing.assert_array_equal(known, labels[wanted])
        assert (found.dtype, known.dtype, pictures.dtype) == (np.uint16, np.int64, np.uint8)


def test_splits_stand_one_after_another_in_the_order_that_was_asked_for(tmp_path):
    folder = made(tmp_path / "shards")
    labels, tokens = stored(folder, "val-00000", "val-00001", "train-00000", "train-00001")
    data = reader(folder, "val", "train")
    assert len(data) == 14
    found, known = data.read(list(range(14)))
    np.testing.assert_array_equal(found, tokens[:, 0])
    np.testing.assert_array_equal(known, labels)


def test_each_image_has_the_views_of_its_shard(tmp_path):
    folder = written(tmp_path / "shards", 2, 1, 3)
    data = reader(folder)
    assert data.views == 3
    assert [data.views_of(index) for index in (0, 3, 4, 6, 7, 10)] == [2, 2, 1, 1, 3, 3]
    _, tokens = stored(folder, "train-00002")
    for view in range(3):
        np.testing.assert_array_equal(data.read([8], view)[0], tokens[1:2, view])
        pictures = data.images([8], view)[0].reshape(3, -1).T
        np.testing.assert_array_equal(pictures, SHOWN[tokens[1, view]])


def test_no_images_have_one_view(tmp_path):
    data = reader(written(tmp_path / "shards", 2), "val")
    assert (len(data), data.views) == (0, 1)


@pytest.mark.parametrize("wanted", [[-1], [7], [0, 7], [-1, 3]])
def test_images_that_there_are_not_are_an_error_of_python(tmp_path, wanted):
    data = reader(written(tmp_path / "shards", 1, 1))
    with pytest.raises(IndexError, match=rf"images {min(wanted)} to {max(wanted)} of 7"):
        data.read(wanted)


def test_a_shard_is_opened_when_first_needed_and_once(tmp_path):
    folder = written(tmp_path / "shards", 1, 1)
    data = reader(folder)
    before = data.read([1])
    (folder / "train-00000.npy").unlink()
    (folder / "train-00001.npy").unlink()
    for one, other in zip(before, data.read([1]), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match=r"train-00001\.npy cannot be read"):
        data.read([4])


def test_a_reader_in_another_process_opens_the_files_for_itself(tmp_path):
    folder = written(tmp_path / "shards", 1, 1)
    data = reader(folder)
    before = data.read([0, 6])
    sent = pickle.dumps(data)
    for one, other in zip(before, pickle.loads(sent).read([0, 6]), strict=True):
        np.testing.assert_array_equal(one, other)
    (folder / "train-00000.npy").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        pickle.loads(sent).read([0])


@pytest.mark.parametrize("change", ["two records", "another type"])
def test_a_shard_that_holds_another_array_than_the_index_says_is_refused(tmp_path, change):
    folder = written(tmp_path / "shards", 1)
    record = np.load(folder / "train-00000.npy")
    np.save(folder / "train-00000.npy", np.repeat(record, 2) if change == "two records" else record["labels"][:1])
    with pytest.raises(UserError, match=r"train-00000\.npy does not hold what the index says"):
        reader(folder).read([0])


def test_a_label_beyond_the_classes_is_damage_that_names_the_shard(tmp_path):
    folder = written(tmp_path / "shards", 1, 1, num_classes=4)
    assert reader(folder).read([4])[1] == [1]
    data = reader(written(tmp_path / "fewer", 1, 1, num_classes=3))
    with pytest.raises(UserError, match=r"train-00000\.npy is damaged: .*; delete the folder"):
        data.all_labels()


def test_a_token_beyond_the_palette_is_damage_that_names_shard_and_image(tmp_path):
    folder = written(tmp_path / "shards", 1, 1)
    path = folder / "train-00001.npy"
    record = np.load(path)
    record["tokens"][0, 2, 0, 5] = len(SHOWN)
    np.save(path, record)
    data = reader(folder)
    data.images([3, 5])
    with pytest.raises(UserError, match=r"train-00001\.npy is damaged: image 6 has tokens beyond the palette's"):
        data.images([0, 6, 5])
