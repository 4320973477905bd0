import pytest
import torch

from igpt.model.order import inverse_order, pixel_order, resize_positions
from igpt.model.transformer import TransformerConfig
from igpt.modules import Autoregressive
from igpt.palette.palette import Palette
from igpt.system.errors import UserError

ORDERS = ["raster", "column", "spiral", "random"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_an_order_visits_every_pixel_once_and_can_be_undone(order, side):
    sequence = pixel_order(order, side)
    assert sorted(sequence.tolist()) == list(range(side * side))
    assert torch.equal(sequence[inverse_order(sequence)], torch.arange(side * side))


def test_the_orders_of_a_three_by_three_image():
    assert pixel_order("raster", 3).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert pixel_order("column", 3).tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert pixel_order("spiral", 3).tolist() == [0, 1, 2, 5, 8, 7, 6, 3, 4]
    assert torch.equal(pixel_order("random", 6), pixel_order("random", 6))


def module_with(order, side=4):
    torch.manual_seed(0)
    module = Autoregressive(TransformerConfig(2, 8, 2, side * side, 5), order=order)
    module.palette.load_state_dict(Palette(torch.rand(5, 3) * 2 - 1).state_dict())
    torch.nn.init.normal_(module.transformer.head.weight)
    return module


@pytest.mark.parametrize("order", ORDERS)
def test_encoding_and_undoing_the_order_gives_the_image_back(order):
    module = module_with(order)
    images = torch.randint(256, (3, 3, 4, 4), dtype=torch.uint8)
    sequence = module.encode(images)
    assert torch.equal(sequence, module.palette.encode(images)[:, pixel_order(order, 4)])
    assert torch.equal(module.to_raster(sequence), module.palette.encode(images))


@pytest.mark.parametrize("order", ORDERS)
def test_a_completion_keeps_the_beginning_of_the_order_in_its_place(order):
    module = module_with(order)
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    pictures, tokens = module.complete(images, num=3, keep=0.5)
    kept = pixel_order(order, 4)[:8]
    expected = module.palette.encode(images)[:, None, kept].expand(-1, 3, -1)
    assert torch.equal(tokens[:, :, kept], expected)
    grey = (pictures[:, 0].flatten(2) == 128).all(1)
    assert not grey[:, kept].all(1).any()
    assert grey[:, pixel_order(order, 4)[8:]].all()


def test_the_order_stands_in_the_checkpoint():
    assert torch.equal(module_with("spiral").state_dict()["pixel_order"], pixel_order("spiral", 4))
    assert module_with("spiral").spec()["init_args"]["order"] == "spiral"


@pytest.mark.parametrize("order", ORDERS)
def test_resizing_positions_to_their_own_size_changes_nothing(order):
    positions, sequence = torch.randn(36, 5), pixel_order(order, 6)
    resized = resize_positions(positions, sequence, sequence, (6, 6), (6, 6))
    torch.testing.assert_close(resized, positions, atol=1e-5, rtol=1e-5)


def test_resized_positions_follow_the_image_whatever_the_order():
    """A ramp from left to right stays a ramp; its sequence may differ."""
    old, new = pixel_order("column", 4), pixel_order("spiral", 8)
    ramp = (torch.arange(16) % 4).float()[old][:, None]
    resized = resize_positions(ramp, old, new, (4, 4), (8, 8))[inverse_order(new)].view(8, 8)
    assert (resized[0] == resized).all(0).all() or torch.allclose(resized, resized[0].expand(8, 8), atol=1e-5)
    assert (resized[0].diff() > 0).all()
    assert resized.mean().item() == pytest.approx(1.5, abs=1e-4)


def test_a_coarser_image_takes_means_of_positions_and_does_not_pick_some():
    stripes = torch.tensor([-1.0, 1.0, 1.0, -1.0]).repeat(2).expand(8, 8).reshape(64, 1)
    coarse = resize_positions(stripes, pixel_order("raster", 8), pixel_order("raster", 2), (8, 8), (2, 2))
    assert coarse.abs().max() < 0.3


def test_an_order_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="no pixel order 'zigzag'"):
        pixel_order("zigzag", 4)
