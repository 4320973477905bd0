"""Any data set of `(PIL image, label)` pairs becomes a data module in three lines."""

import pytest
import torch
from PIL import Image

import igpt.data
from igpt.data import open_picture
from igpt.system import UserError
from igpt.testing import check_data_module
from tests.datamodules.pictures import picture


class Pairs:
    """Pictures of several sizes and modes, with labels 0 to 2, read one at a time."""

    def __init__(self, count=30, targets=False):
        self.count, self.read = count, 0
        if targets:
            self.targets = [index % 3 for index in range(count)]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read += 1
        mode = ("RGB", "L", "RGBA")[index % 3]
        return picture(index, (40 + index % 5, 30)).convert(mode), index % 3


class Mine(igpt.data.ImageDataModule):
    num_classes = 3

    def load(self):
        return {name: igpt.data.wrap(Pairs(), self.resolution) for name in ("train", "test")}


def test_three_lines_make_a_data_module_that_keeps_the_contract():
    check_data_module(lambda: Mine(resolution=8, batch_size=4))


def test_an_image_is_that_of_its_file(tmp_path):
    pairs = Pairs()
    pairs[3][0].save(tmp_path / "three.png")
    image, label = igpt.data.wrap(pairs, 8)[3]
    assert torch.equal(image, open_picture(tmp_path / "three.png", 8))
    assert label == 0


def test_known_labels_spare_reading_every_image():
    known, unknown = Pairs(targets=True), Pairs()
    assert igpt.data.wrap(known, 8).labels.tolist() == igpt.data.wrap(unknown, 8).labels.tolist()
    assert (known.read, unknown.read) == (0, 30)


def test_no_label_is_none_and_what_is_no_pair_is_refused():
    image = Image.new("RGB", (8, 8))
    assert igpt.data.wrap([(image, None), (image, None)], 8).labels.tolist() == [-1, -1]
    with pytest.raises(UserError, match="pairs of image and label"):
        igpt.data.wrap([image], 8)
