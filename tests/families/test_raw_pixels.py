"""The raw pixels as a source of features: what pictures are compared by where there is no encoder."""

import numpy as np
import pytest
import torch

from igpt.families import open_source
from igpt.testing import check_source


def test_raw_pixels_keep_the_contract_of_a_source():
    check_source(lambda: open_source("pixels"), resolution=8)


@pytest.mark.parametrize(("side", "block"), [(8, 1), (16, 1), (32, 2), (64, 4)])
def test_features_are_the_means_of_blocks_of_pixels_at_most_16_a_side(side, block):
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = open_source("pixels").features(images, ["pixels"])[0]
    few = side // block
    expected = images.numpy().reshape(3, 3, few, block, few, block).mean((3, 5)).reshape(3, -1) / 255
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
