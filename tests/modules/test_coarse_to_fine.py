"""Colours in two steps: the coarse colour of every pixel, then its colour among those of its group."""

import itertools

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.model import FeatureOptions, SamplingOptions, TransformerConfig
from igpt.modules import Autoregressive, CoarseToFine, Joint
from igpt.palette import Palette, group_colors
from igpt.system import UserError
from tests.reference import numpy_igpt

GROUPS = torch.tensor([0, 1, 0, 2, 2, 1])


def module_of(side=4, colors=6, coarse=3, order="raster", groups=GROUPS, width=12, **shape):
    """A module of greys whose weights are random and large enough to matter."""
    torch.manual_seed(0)
    module = CoarseToFine(TransformerConfig(2, width, 2, side * side, colors, **shape), order=order, coarse=coarse)
    levels = torch.linspace(-1, 1, colors)
    module.palette.load_state_dict(Palette(levels[:, None].expand(-1, 3).clone()).state_dict())
    module.coarse_of.copy_(groups)
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def images_for(side=4, count=3):
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def all_pictures(**options):
    """The 81 pictures of 2x2 pixels in 3 colours, as sequences of a module with the groups {0, 2} and {1}."""
    module = module_of(2, 3, 2, groups=torch.tensor([0, 1, 0]), **options)
    colors = torch.tensor(list(itertools.product(range(3), repeat=4)))
    return module, colors, torch.cat([module.coarse_of[colors] + 3, colors], 1)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "subscale2"},
        {"attention": [{"pattern": "rows", "k": 1}, {"pattern": "strided"}], "positions": "bias"},
        {"order": "subscale2", "positions": "rope", "width": 16},
    ],
)
def test_the_probabilities_of_all_pictures_sum_to_one(options):
    module, _, sequences = all_pictures(**options)
    nats = module.surprise(sequences)
    assert nats.shape == (81, 4)
    assert nats.std() > 0.1  # no uniform distribution
    assert (-nats.double().sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_pictures_are_drawn_as_often_as_they_are_probable():
    module, colors, sequences = all_pictures()
    probability = (-module.surprise(sequences).double().sum(1)).exp()
    drawn = module.sample(20_000, SamplingOptions(seed=1))
    number = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    assert torch.equal(colors[number], drawn)
    frequency = torch.bincount(number, minlength=81) / len(drawn)
    assert (frequency - probability).abs().max() < 0.012
    assert probability.max() > 0.04


@torch.no_grad()
@pytest.mark.parametrize("order", ["raster", "spiral", "subscale2"])
def test_the_surprise_of_a_pixel_is_that_of_its_coarse_colour_and_of_its_colour_in_the_group(order):
    module, images = module_of(order=order), images_for()
    sequences, pixels, colors = module.encode(images), 16, 6
    weights = {name: value.detach().numpy() for name, value in module.transformer.state_dict().items()}
    weights["wpe"] = module.transformer.positions().detach().numpy()
    expected = np.zeros((3, pixels))
    for image, tokens in enumerate(sequences.numpy()):
        logits, _ = numpy_igpt.run(weights, tokens, n_layers=2, heads=2, causal=True)
        for pixel, color in enumerate(module.palette.encode(images)[image, module.pixel_order].tolist()):
            group = int(GROUPS[color])
            members = [other for other in range(colors) if GROUPS[other] == group]
            coarse = numpy_igpt.softmax(logits[pixel][colors:])[group]
            fine = numpy_igpt.softmax(logits[pixels + pixel][members])[members.index(color)]
            expected[image, pixel] = -np.log(coarse) - np.log(fine)
    np.testing.assert_allclose(module.surprise(sequences), expected, atol=1e-5, rtol=1e-5)
    assert module.loss(sequences, rng_of(0)).item() == pytest.approx(expected.mean(), rel=1e-5)
    joint = Joint(4, generative=module).eval()
    generative, _, _ = joint.losses(sequences, torch.tensor([0, 1, 2]), rng_of(0))
    assert generative.item() == pytest.approx(expected.mean(), rel=1e-5)


def test_an_untrained_network_takes_the_surprise_of_the_coarse_colours_and_of_the_group():
    module = CoarseToFine(TransformerConfig(1, 8, 2, 16, 6), coarse=3)
    module.coarse_of.copy_(GROUPS)
    colors = torch.arange(16)[None] % 6
    nats = module.surprise(torch.cat([GROUPS[colors] + 6, colors], 1))
    torch.testing.assert_close(nats, torch.full((1, 16), 3.0).log() + torch.tensor(2.0).log())


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 2, "temperature": 2.0}, {"top_p": 0.5}])
@pytest.mark.parametrize("order", ["raster", "subscale2"])
def test_a_drawn_colour_is_of_the_coarse_colour_that_was_drawn_before(options, order):
    module = module_of(order=order)
    known = torch.zeros(20, 32, dtype=torch.int64)
    whole = module.infill(known, torch.ones(20, 16, dtype=torch.bool), SamplingOptions(seed=3, **options))
    coarse, fine = whole.chunk(2, 1)
    assert torch.equal(coarse - 6, GROUPS[fine])
    assert len(coarse.unique()) > 1
    assert torch.equal(module.to_raster(whole), module.sample(20, SamplingOptions(seed=3, **options)))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"attention": [{"pattern": "rows", "k": 1}], "positions": "shared_bias"}])
def test_greedy_pictures_are_those_of_the_forward_without_a_cache(options):
    module = module_of(**options)
    drawn = module.infill(torch.zeros(3, 32, dtype=torch.int64), torch.ones(3, 16, dtype=torch.bool),
                          SamplingOptions(top_k=1))  # fmt: skip
    coarse, fine = module.transformer(drawn, causal=True).chunk(2, 1)
    assert torch.equal(drawn[:, :16], coarse[..., 6:].argmax(-1) + 6)
    members = (drawn[:, :16, None] - 6) == GROUPS
    assert torch.equal(drawn[:, 16:], fine[..., :6].where(members, -torch.inf).argmax(-1))


@pytest.mark.parametrize("order", ["raster", "spiral"])
@pytest.mark.parametrize("region", [None, "middle"])
def test_known_pixels_stay_and_the_others_are_drawn_in_their_groups(order, region):
    module, images = module_of(order=order), images_for()
    if region:
        region = torch.zeros(4, 4, dtype=torch.bool)
        region[1:3, 1:3] = True
    pictures, tokens = module.complete(images, num=4, region=region)
    original = module.palette.encode(images)
    unknown = torch.zeros(16, dtype=torch.bool)
    unknown[module.pixel_order] = module.unknown_part(region=region)
    assert pictures.shape == (3, 6, 3, 4, 4)
    assert tokens.shape == (3, 4, 16)
    assert torch.equal(tokens[..., ~unknown], original[:, None, ~unknown].expand(-1, 4, -1))
    assert torch.equal((pictures[:, 0].flatten(2) == 128).all(1), unknown.expand(3, -1))
    assert len(tokens[..., unknown].unique()) > 3


@torch.no_grad()
def test_features_are_means_over_both_tokens_of_the_pixels_of_a_cell():
    module, images = module_of(order="spiral"), images_for()
    tokens = module.encode(images)
    states = module.transformer.hidden_states(tokens, causal=True)
    torch.testing.assert_close(module.features(tokens, [2])[0], states.mean(1))
    raster = states.unflatten(1, (2, 16)).mean(1)[:, module.pixel_order.argsort()].view(3, 4, 4, 12)
    cells = [raster[:, a : a + 2, b : b + 2].mean((1, 2)) for a in (0, 2) for b in (0, 2)]
    torch.testing.assert_close(module.features(tokens, [2], FeatureOptions(grid=2))[0], torch.cat(cells, 1))


def test_the_network_has_two_tokens_a_pixel_and_both_kinds_of_colours():
    module = module_of(order="subscale2")
    network = module.transformer.config
    assert (network.n_positions, network.vocab_size, network.grid, network.slices) == (32, 9, (8, 4), 8)
    assert module.resolution == 4
    again = CoarseToFine(**module.spec()["init_args"])
    again.load_state_dict(module.state_dict())
    assert again.spec() == module.spec()
    assert torch.equal(again.encode(images_for()), module.encode(images_for()))


@pytest.mark.parametrize("coarse", [0, 1, 7])
def test_more_coarse_colours_than_colours_or_fewer_than_two_are_refused(coarse):
    with pytest.raises(UserError, match=rf"coarse {coarse} must lie between 2 and 6"):
        CoarseToFine(TransformerConfig(1, 8, 2, 16, 6), coarse=coarse)


@pytest.mark.parametrize("groups", [[0, 1, 0, 1, 1, 1], [0, 1, 2, 3, 0, 0], [0, 1, 2, -1, 0, 0]])
def test_groups_of_a_checkpoint_that_no_colour_or_too_many_are_in_are_refused(groups):
    module = module_of()
    state = module.state_dict() | {"coarse_of": torch.tensor(groups)}
    with pytest.raises(UserError, match="groups of colours are not 3"):
        module.load_state_dict(state)


def test_coarse_colours_are_clusters_of_the_palette():
    rng = np.random.default_rng(0)
    places = np.array([[0.9, -0.9, -0.9], [-0.9, 0.9, -0.9], [-0.9, -0.9, 0.9]])[np.arange(60) % 3]
    palette = Palette(torch.from_numpy((places + rng.uniform(-0.1, 0.1, (60, 3))).astype(np.float32)))
    groups = group_colors(palette, 3).view(20, 3)
    assert (groups == groups[0]).all()
    assert sorted(groups[0].tolist()) == [0, 1, 2]
    assert torch.equal(group_colors(palette, 3).view(20, 3), groups)


@pytest.mark.parametrize(("colors", "coarse"), [(6, 6), (6, 5), (17, 16), (512, 16)])
@pytest.mark.parametrize("equal", [False, True])
def test_every_coarse_colour_has_a_colour_whatever_the_palette(colors, coarse, equal):
    values = torch.rand(colors, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    groups = group_colors(Palette(values.mul(0) if equal else values), coarse)
    assert groups.unique().tolist() == list(range(coarse))


@pytest.mark.parametrize("order", ["raster", "subscale2"])
def test_a_larger_network_starts_with_both_halves_of_the_positions_of_a_smaller(order, tmp_path):
    first, path = module_of(order=order), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict(), "igpt": {"format": 1, "model": first.spec(), "data": None}}, path)
    spiral = CoarseToFine(first.config, order="spiral", coarse=3, start_from=str(path))
    assert torch.equal(spiral.coarse_of, GROUPS)
    positions = [one.transformer.positions().view(2, 16, 12)[:, one.pixel_order.argsort()] for one in (first, spiral)]
    torch.testing.assert_close(*positions)
    grown = CoarseToFine(TransformerConfig(2, 12, 2, 64, 6), order=order, coarse=3, start_from=str(path))
    assert grown.transformer.wpe.shape == (128, 12)
    plain = tmp_path / "plain.ckpt"
    other = Autoregressive(first.config)
    other.palette.load_state_dict(first.palette.state_dict())
    torch.save({"state_dict": other.state_dict(), "igpt": {"format": 1, "model": other.spec(), "data": None}}, plain)
    with pytest.raises(UserError, match="does not fit this model"):
        CoarseToFine(first.config, coarse=3, start_from=str(plain))
