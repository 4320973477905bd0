"""Picture files given to `igpt sample` and `igpt surprise`: what is seen in them."""

import numpy as np
import pytest
import torch
from PIL import Image

from igpt.data.imagefile import decode_rgb, open_mask, open_picture

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


@pytest.fixture(params=["L", "RGBA", "I;16"])
def shades(request, tmp_path):
    """One ramp of grey as a picture of 8 bits, with an opaque fourth channel, and of 16 bits."""
    grey = Image.fromarray((RAMP >> 8).astype(np.uint8))
    image = Image.fromarray(RAMP) if request.param == "I;16" else grey.convert(request.param)
    assert image.mode == request.param
    image.save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


def test_grey_of_any_depth_is_the_same_picture_and_the_same_mask(shades):
    upper = torch.from_numpy((RAMP >> 8).astype(np.int64))
    assert torch.equal(open_picture(shades, 8).long(), upper.expand(3, 8, 8))
    assert torch.equal(open_mask(shades, 8), upper >= 128)


def test_what_is_transparent_is_white_whatever_its_hidden_colour(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255  # the right half is black, the left one black that is not seen
    Image.fromarray(pixels).save(tmp_path / "half.png")
    seen = torch.zeros(8, 8, dtype=torch.uint8)
    seen[:, :4] = 255
    assert torch.equal(open_picture(tmp_path / "half.png", 8), seen.expand(3, 8, 8))
    assert torch.equal(open_mask(tmp_path / "half.png", 8), seen == 255)


def test_plug_ins_decode_with_the_same_function():
    import igpt.data
    from igpt_datamodules.files import stored

    assert stored.decode_rgb is igpt.data.decode_rgb is decode_rgb
