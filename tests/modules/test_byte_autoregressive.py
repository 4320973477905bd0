"""AR over RGB values: three tokens a pixel, each a value of its own channel."""

import itertools
import math

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.model import FeatureOptions, SamplingOptions, TransformerConfig
from igpt.modules import ByteAutoregressive, Joint
from igpt.system import UserError
from igpt_datamodules import TokenShards
from tests.reference import numpy_igpt


def module_of(side=4, values=256, order="raster", width=12, **shape):
    """A module whose weights are random and large enough to matter."""
    torch.manual_seed(0)
    module = ByteAutoregressive(TransformerConfig(2, width, 2, side * side, values, **shape), order=order)
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def images_for(side=4, count=3):
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def all_pictures(pixels, values):
    """Every picture of so many pixels, `(values ** (3 pixels), pixels, 3)`."""
    return torch.tensor(list(itertools.product(range(values), repeat=3 * pixels))).unflatten(1, (-1, 3))


def exact_nats(module, sequences):
    """-log p of whole pictures in float64, each value among those of its channel, without the module's own `nll`."""
    double = module.transformer.double()
    logits = double(sequences, causal=True).numpy()
    module.transformer.float()
    count, total = module.values, np.zeros(len(sequences))
    for position in range(sequences.shape[1]):
        first = position % 3 * count
        own = logits[:, position, first : first + count]
        top = own.max(1, keepdims=True)
        log_p = own - top - np.log(np.exp(own - top).sum(1, keepdims=True))
        total -= log_p[np.arange(len(log_p)), sequences[:, position].numpy() - first]
    return total


@torch.no_grad()
@pytest.mark.parametrize(
    ("pixels", "values", "options"),
    [
        ((1, 2), 4, {"grid": (1, 2)}),
        ((2, 2), 2, {}),
        ((2, 2), 2, {"order": "subscale2"}),
        ((2, 2), 2, {"order": "spiral", "attention": [{"pattern": "rows", "k": 1}], "positions": "bias"}),
        ((1, 2), 3, {"grid": (1, 2), "positions": "rope", "width": 16}),
    ],
)
def test_the_probabilities_of_all_pictures_sum_to_one(pixels, values, options):
    order, shape = options.pop("order", "raster"), dict(options)
    torch.manual_seed(0)
    width = shape.pop("width", 12)
    module = ByteAutoregressive(TransformerConfig(2, width, 2, math.prod(pixels), values, **shape), order=order)
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    sequences = (all_pictures(math.prod(pixels), values) + values * torch.arange(3)).flatten(1)
    nats = exact_nats(module.eval(), sequences)
    assert np.std(nats) > 0.1  # no uniform distribution
    assert math.fsum(np.exp(-nats)) == pytest.approx(1, abs=1e-12)
    own = module.surprise(sequences)
    assert own.shape == (len(sequences), math.prod(pixels))
    np.testing.assert_allclose(own.double().sum(1), nats, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_pictures_are_drawn_as_often_as_they_are_probable():
    torch.manual_seed(0)
    module = ByteAutoregressive(TransformerConfig(2, 12, 2, 2, 2, grid=(1, 2)))
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    pictures = all_pictures(2, 2)
    probability = np.exp(-exact_nats(module, (pictures + 2 * torch.arange(3)).flatten(1)))
    drawn = module.sample(20_000, SamplingOptions(seed=1))  # (N, 2), colours below 8
    frequency = torch.bincount(drawn @ torch.tensor([8, 1]), minlength=64) / len(drawn)
    assert np.abs(frequency.numpy() - probability).max() < 0.012
    assert probability.max() > 0.04


@torch.no_grad()
@pytest.mark.parametrize("order", ["raster", "spiral", "subscale2"])
def test_the_surprise_of_a_pixel_is_that_of_its_three_values_in_order(order):
    module, images = module_of(order=order), images_for()
    sequences = module.encode(images)
    weights = {name: value.detach().numpy() for name, value in module.transformer.state_dict().items()}
    weights["wpe"] = module.transformer.positions().detach().numpy()
    expected = np.zeros((3, 16))
    for image, tokens in enumerate(sequences.numpy()):
        logits, _ = numpy_igpt.run(weights, tokens, n_layers=2, heads=2, causal=True)
        for place, pixel in enumerate(module.pixel_order.tolist()):
            for channel in range(3):
                value = int(images[image, channel].flatten()[pixel])
                assert tokens[3 * place + channel] == 256 * channel + value
                own = logits[3 * place + channel][256 * channel : 256 * (channel + 1)]
                expected[image, place] -= np.log(numpy_igpt.softmax(own)[value])
    np.testing.assert_allclose(module.surprise(sequences), expected, atol=1e-4, rtol=1e-4)
    assert module.loss(sequences, rng_of(0)).item() == pytest.approx(expected.mean(), rel=1e-4)
    generative, _, _ = Joint(4, generative=module).eval().losses(sequences, torch.tensor([0, 1, 2]), rng_of(0))
    assert generative.item() == pytest.approx(expected.mean(), rel=1e-4)


def test_an_untrained_network_needs_eight_bits_a_dimension():
    module = ByteAutoregressive(TransformerConfig(1, 8, 2, 16, 256))
    nats = module.surprise(module.encode(images_for()))
    torch.testing.assert_close(nats / (3 * math.log(2)), torch.full((3, 16), 8.0))


@pytest.mark.parametrize("order", ["raster", "spiral", "subscale2"])
@pytest.mark.parametrize("values", [256, 200, 32, 3, 2])
def test_pictures_come_back_from_their_tokens_and_in_fewer_values_stay_near(values, order):
    module, images = module_of(values=values, order=order), images_for()
    again = module.decode(module.to_raster(module.encode(images)))
    assert again.dtype == torch.uint8
    assert (again.int() - images.int()).abs().max() <= math.ceil(256 / values) // 2
    assert torch.equal(module.encode(again), module.encode(images))
    if values == 256:
        assert torch.equal(again, images)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"attention": [{"pattern": "rows", "k": 1}], "positions": "shared_bias"}])
def test_greedy_pictures_are_those_of_the_forward_without_a_cache(options):
    module = module_of(values=7, **options)
    drawn = module.infill(torch.zeros(3, 48, dtype=torch.int64), torch.ones(3, 16, dtype=torch.bool),
                          SamplingOptions(top_k=1))  # fmt: skip
    logits = module.transformer(drawn, causal=True)
    channel = torch.arange(21) // 7
    own = logits.where(channel == torch.arange(48)[:, None] % 3, -torch.inf)
    assert torch.equal(drawn, own.argmax(-1))


@pytest.mark.parametrize("order", ["raster", "spiral"])
@pytest.mark.parametrize("region", [None, "middle"])
def test_known_pixels_stay_in_all_channels_and_the_others_are_drawn(order, region):
    module, images = module_of(order=order), images_for()
    if region:
        region = torch.zeros(4, 4, dtype=torch.bool)
        region[1:3, 1:3] = True
    pictures, tokens = module.complete(images, num=2, region=region)
    unknown = torch.zeros(16, dtype=torch.bool)
    unknown[module.pixel_order] = module.unknown_part(region=region)
    assert pictures.shape == (3, 4, 3, 4, 4)
    assert tokens.shape == (3, 2, 16)
    known = images.flatten(2)[:, None, :, ~unknown]
    assert torch.equal(pictures[:, 1:].flatten(3)[..., ~unknown], known.expand(-1, 3, -1, -1))
    assert torch.equal(pictures[:, 3], images)
    assert (pictures[:, 0].flatten(2)[..., unknown] == 128).all()
    assert len(tokens[..., unknown].unique()) > 20


@torch.no_grad()
def test_features_are_means_over_the_three_tokens_of_the_pixels_of_a_cell():
    module, images = module_of(order="spiral"), images_for()
    tokens = module.encode(images)
    states = module.transformer.hidden_states(tokens, causal=True)
    torch.testing.assert_close(module.features(tokens, [2])[0], states.mean(1))
    raster = states.unflatten(1, (16, 3)).mean(2)[:, module.pixel_order.argsort()].view(3, 4, 4, 12)
    cells = [raster[:, a : a + 2, b : b + 2].mean((1, 2)) for a in (0, 2) for b in (0, 2)]
    torch.testing.assert_close(module.features(tokens, [2], FeatureOptions(grid=2))[0], torch.cat(cells, 1))


def test_the_network_has_three_columns_a_pixel_and_a_token_for_each_value_of_each_channel():
    module = module_of(order="subscale2")
    network = module.transformer.config
    assert (network.n_positions, network.vocab_size, network.grid, network.slices) == (48, 768, (4, 12), 4)
    assert module.resolution == 4
    assert not any("palette" in name for name in module.state_dict())
    again = ByteAutoregressive(**module.spec()["init_args"])
    again.load_state_dict(module.state_dict())
    assert again.spec() == module.spec()
    assert "palette" not in module.spec()["init_args"]
    assert torch.equal(again.encode(images_for()), module.encode(images_for()))


@pytest.mark.parametrize("values", [1, 257, 512])
def test_other_than_2_to_256_values_are_refused(values):
    with pytest.raises(UserError, match=rf"vocab_size {values} must lie from 2 to 256"):
        ByteAutoregressive(TransformerConfig(1, 8, 2, 16, values))


def test_token_shards_are_refused_since_their_colours_are_a_palettes():
    class Shards(TokenShards):
        palette_sha256 = "0" * 64

        def __init__(self):
            pass

    with pytest.raises(UserError, match="Shards have the colours of a palette alone"):
        module_of().check_colors(Shards())


def test_another_order_or_size_starts_with_the_positions_of_each_channel(tmp_path):
    first, path = module_of(values=5, order="subscale2"), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict(), "igpt": {"format": 1, "model": first.spec(), "data": None}}, path)
    spiral = ByteAutoregressive(first.config, order="spiral", start_from=str(path))
    positions = [
        one.transformer.positions().unflatten(0, (16, 3))[one.pixel_order.argsort()] for one in (first, spiral)
    ]
    torch.testing.assert_close(*positions)
    grown = ByteAutoregressive(TransformerConfig(2, 12, 2, 64, 5), order="subscale2", start_from=str(path))
    assert grown.transformer.wpe.shape == (192, 12)
    means = [one.transformer.wpe.unflatten(0, (-1, 3)).mean(0) for one in (first, grown)]
    torch.testing.assert_close(*means, atol=0.02, rtol=0)  # of each channel, which interpolation does not mix


@torch.no_grad()
@pytest.mark.parametrize("positions", ["bias", "rope"])
def test_with_positions_by_offsets_it_takes_pictures_of_another_size(positions):
    module = module_of(values=6, width=16, positions=positions)
    wide = module.at_resolution((4, 6))
    assert wide.transformer.config.grid == (4, 18)
    assert wide.surprise(wide.encode(torch.zeros(1, 3, 4, 6, dtype=torch.uint8))).shape == (1, 24)
    with pytest.raises(UserError, match="knows positions of 4x4 pictures alone"):
        module_of().at_resolution(6)
