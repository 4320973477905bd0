"""Subscale orders (Menick & Kalchbrenner 2018): slices of a picture one after another, the first a small picture."""

import itertools

import pytest
import torch

from igpt.model.cache import Decoder
from igpt.model.objectives import pixel_nll
from igpt.model.order import pixel_order, slices_of
from igpt.model.sampling import SamplingOptions, generate
from igpt.model.transformer import TransformerConfig, parameter_count
from igpt.modules import BERT, Autoregressive, CoarseToFine
from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from tests.conftest import randomised

STRIDE = {"subscale2": 2, "subscale4": 4}


def module_with(order, side=8, colors=5, kind=Autoregressive, width=12, **shape):
    torch.manual_seed(0)
    module = kind(TransformerConfig(2, width, 2, side * side, colors, sos=kind.causal, **shape), order=order)
    levels = torch.linspace(-1, 1, colors)
    module.palette.load_state_dict(Palette(levels[:, None].expand(-1, 3).clone()).state_dict())
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


@pytest.mark.parametrize(("order", "side"), [("subscale2", 2), ("subscale2", 6), ("subscale4", 4), ("subscale4", 12)])
def test_slices_follow_one_another_and_each_is_a_picture_at_a_distance(order, side):
    stride, grid = STRIDE[order], torch.arange(side * side).view(side, side)
    slices = [grid[a::stride, b::stride].flatten() for a in range(stride) for b in range(stride)]
    assert torch.equal(pixel_order(order, side), torch.cat(slices))
    assert slices_of(order) == len(slices)


@pytest.mark.parametrize(("order", "side"), [("subscale2", 5), ("subscale4", 6), ("subscale4", 2)])
def test_a_side_that_the_distance_does_not_divide_is_refused(order, side):
    with pytest.raises(
        UserError, match=rf"^order {order}: {order[-1]} does not divide .* {side}x{side} pixels; choose"
    ):
        module_with(order, side)


def test_an_embedding_of_the_slice_is_added_at_each_of_its_positions():
    network = module_with("subscale2").transformer
    tokens = torch.randint(5, (3, 64), generator=torch.Generator().manual_seed(0))
    assert network.slices.shape == (4, 12)
    plain = randomised(TransformerConfig(2, 12, 2, 64, 5))
    state = {name: value for name, value in network.state_dict().items() if name != "slices"}
    plain.load_state_dict(state | {"wpe": network.wpe + network.slices.repeat_interleave(16, 0)})
    torch.testing.assert_close(network(tokens, causal=True), plain(tokens, causal=True))


def test_other_orders_have_no_slices_and_their_configs_stay_as_they_were():
    plain, subscale = module_with("raster"), module_with("subscale4")
    assert plain.transformer.slices is None
    assert set(plain.spec()["init_args"]["transformer"]) == {
        *("n_layers", "d_model", "n_heads", "n_positions", "vocab_size", "norm", "sos")
    }
    more = {"transformer.slices"}
    assert set(subscale.state_dict()) - set(plain.state_dict()) == more
    count = parameter_count(subscale.transformer.config)
    assert count == sum(parameter.numel() for parameter in subscale.transformer.parameters())


def test_slices_that_do_not_divide_the_sequence_are_refused():
    with pytest.raises(UserError, match=r"transformer.slices 3 must divide n_positions 16"):
        TransformerConfig(1, 8, 2, 16, 5, slices=3)


def test_the_probabilities_of_all_pictures_sum_to_one():
    module = module_with("subscale2", 2, 3).double()
    pictures = torch.tensor(list(itertools.product(range(3), repeat=4)))  # 81, in raster order
    nats = pixel_nll(
        module.transformer(pictures[:, module.pixel_order], causal=True).double(), pictures[:, module.pixel_order]
    )
    assert nats.std() > 0.1  # no uniform distribution
    assert (-nats.double().sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("order", STRIDE)
def test_a_pixel_depends_on_those_before_it_in_the_order_and_on_no_other(order):
    module = module_with(order, 4)
    tokens = torch.randint(5, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = module.transformer(tokens, causal=True)[0]
        for place in range(16):
            changed = tokens.clone()
            changed[0, place] = (tokens[0, place] + 1) % 5
            differs = (module.transformer(changed, causal=True)[0] != before).any(1)
            assert not differs[: place + 1].any()
            assert differs[place + 1 :].all()


@pytest.mark.parametrize("order", STRIDE)
@pytest.mark.parametrize(
    "shape", [{}, {"positions": "rope", "width": 16}, {"attention": [{"pattern": "rows", "k": 2}]}]
)
def test_greedy_pictures_are_those_of_the_forward_without_a_cache(order, shape):
    network = module_with(order, **shape).transformer
    assert (network.wpe is None) == ("positions" in shape)
    drawn = generate(network, torch.empty(2, 0, dtype=torch.int64), top_k=1)
    with torch.no_grad():
        assert torch.equal(network(drawn, causal=True).argmax(-1), drawn)


@pytest.mark.parametrize("prefix", [0, 20])
def test_cached_and_uncached_logits_agree_also_as_the_step_that_cuda_records(prefix):
    network = module_with("subscale2").transformer
    tokens = torch.randint(5, (3, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, decoder = network(tokens, causal=True), Decoder(network, 3)
        torch.testing.assert_close(decoder.next_logits(tokens[:, :prefix]), expected[:, prefix], atol=1e-5, rtol=1e-4)
        for position in range(prefix + 1, 64):
            step = 64, tokens[:, position - 1], torch.tensor([position])
            torch.testing.assert_close(decoder.masked_step(*step), expected[:, position], atol=1e-5, rtol=1e-4)
            logits = decoder.next_logits(tokens[:, position - 1 : position])
            torch.testing.assert_close(logits, expected[:, position], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("order", "side", "kind"), [("subscale2", 6, Autoregressive), ("subscale4", 12, BERT)])
def test_the_small_picture_is_kept_and_the_rest_drawn_given_it(order, side, kind):
    module, stride = module_with(order, side, kind=kind), STRIDE[order]
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures, tokens = module.complete(images, num=2, keep=1 / stride**2, options=SamplingOptions(steps=3))
    small = module.palette.encode(images).view(2, 1, side, side)[..., ::stride, ::stride]
    drawn = tokens.view(2, 2, side, side)
    assert torch.equal(drawn[..., ::stride, ::stride], small.expand(-1, 2, -1, -1))
    grey = (pictures[:, 0] == 128).all(1)
    shown = torch.zeros(side, side, dtype=torch.bool)
    shown[::stride, ::stride] = True
    assert torch.equal(grey & ~shown, ~shown.expand(2, -1, -1))
    decoded = module.palette.decode(small.flatten(1)).view(2, 3, *small.shape[2:])
    assert torch.equal(pictures[:, 0, :, ::stride, ::stride], decoded)


@pytest.mark.parametrize(
    ("order", "other"), [("raster", "subscale2"), ("subscale2", "raster"), ("subscale2", "subscale4")]
)
def test_weights_of_another_order_mean_the_same_at_each_pixel(order, other, tmp_path):
    first, path = module_with(order), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict(), "igpt": {"format": 1, "model": first.spec(), "data": None}}, path)
    second = Autoregressive(first.config, order=other, start_from=str(path))
    positions = [one.transformer.positions()[one.pixel_order.argsort()] for one in (first, second)]
    torch.testing.assert_close(*positions)


@pytest.mark.parametrize("kind", [Autoregressive, CoarseToFine])
def test_pictures_that_are_not_square_are_drawn_from_their_small_picture(kind):
    module = kind(TransformerConfig(2, 12, 2, 24, 20, grid=(4, 6)), order="subscale2")
    levels = torch.linspace(-1, 1, 20)[:, None].expand(-1, 3).clone()
    module.palette.load_state_dict(Palette(levels).state_dict())
    if isinstance(module, CoarseToFine):
        module.coarse_of.copy_(torch.arange(20) % 16)
    images = torch.randint(256, (2, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures, tokens = module.complete(images, num=2, keep=0.25)
    assert pictures.shape == (2, 4, 3, 4, 6)
    small = module.palette.encode(images).view(2, 1, 4, 6)[..., ::2, ::2]
    assert torch.equal(tokens.view(2, 2, 4, 6)[..., ::2, ::2], small.expand(-1, 2, -1, -1))
    assert module.surprise(module.encode(images)).shape == (2, 24)


def test_a_grown_model_keeps_its_slices(tmp_path):
    first, path = module_with("subscale2", 4), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict(), "igpt": {"format": 1, "model": first.spec(), "data": None}}, path)
    config = TransformerConfig(2, 12, 2, 64, 5)
    second = Autoregressive(config, order="subscale2", start_from=str(path))
    assert torch.equal(second.transformer.slices, first.transformer.slices)
