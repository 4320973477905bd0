import numpy as np
import torch

from igpt.palette.palette import Palette
from igpt.tokenization.writing import stand_ins


def test_the_colour_of_a_token_is_the_palettes_own_where_it_leads_back():
    colors = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    palette = Palette(colors)
    np.testing.assert_array_equal(stand_ins(palette), palette.rgb().numpy())


def test_colours_that_agree_in_8_bits_still_stand_for_different_tokens():
    """Levels 100.1, 100.4 and 101.4: the first two round to 100, which is nearest to the first."""
    grey = torch.tensor([[100.1] * 3, [100.4] * 3, [101.4, 100.4, 100.4], [200.0] * 3])
    palette = Palette(grey / 127.5 - 1)
    shown = torch.from_numpy(stand_ins(palette))
    codes = torch.cartesian_prod(*[torch.arange(98, 104, dtype=torch.uint8)] * 3)
    possible = palette.nearest(codes).unique()
    assert len(possible) == 3  # all of them become tokens somewhere
    assert palette.nearest(shown).tolist() == [0, 1, 2, 3]
    assert palette.nearest(palette.rgb()).tolist() != [0, 1, 2, 3]  # the palette's own colours would lose one
