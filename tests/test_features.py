"""Features under all options, against hidden states computed in NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from igpt.model.features import FeatureOptions
from igpt.model.transformer import PRESETS
from igpt.modules import BERT, Autoregressive
from igpt.probing.extract import worth_compiling
from igpt.system.errors import UserError
from igpt.system.hardware import Compute
from tests.conftest import REPO
from tests.reference import numpy_igpt

LAYERS, HEADS, WIDTH = 2, 2, 8
SIDES = {"raster": 3, "column": 4, "spiral": 3, "random": 4}


def network(kind, order, **options):
    """Every parameter random and large enough to matter."""
    torch.manual_seed(1)
    shape = {"n_layers": LAYERS, "d_model": WIDTH, "n_heads": HEADS, "n_positions": SIDES[order] ** 2, "vocab_size": 17}
    module = kind({**shape, "sos": kind is Autoregressive}, palette=str(REPO / "palettes" / "digits.npy"), order=order,
                  **options).eval()  # fmt: skip
    with torch.no_grad():
        for name, parameter in module.transformer.named_parameters():
            parameter.normal_(std=0.4).add_(1.0 if "ln_" in name else 0.0)
    return module


def tokens_of(module, images=3):
    length = module.transformer.config.n_positions
    return torch.randint(17, (images, length), generator=torch.Generator().manual_seed(2))


def states(module, tokens, norm, masked=None):
    """Hidden states (L + 1, B, T, D) in the order of the sequence, by the reference."""
    weights = {name: value.detach().numpy() for name, value in module.transformer.state_dict().items()}
    function = numpy_igpt.normed_states if norm == "normed" else numpy_igpt.states
    found = []
    for index, image in enumerate(tokens.numpy()):
        hidden = None if masked is None else masked[index].numpy()
        found.append(function(weights, image, n_layers=LAYERS, heads=HEADS, causal=module.causal, masked=hidden))
    return np.array(found).swapaxes(0, 1)


def pixel_of(order, side):
    """Row and column of each element of the sequence, written down again from the words of the guide."""
    if order == "raster":
        return [(i // side, i % side) for i in range(side**2)]
    if order == "column":
        return [(i % side, i // side) for i in range(side**2)]
    assert (order, side) == ("spiral", 3)
    return [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (1, 1)]


def cells(states, order, grid):
    """Means over the cells of the picture, (..., grid * grid * D), by putting every state at its pixel."""
    side = SIDES[order]
    place = [tuple(int(Fraction(x * grid, side)) for x in pixel) for pixel in pixel_of(order, side)]
    parts = []
    for row in range(grid):
        for column in range(grid):
            inside = [i for i, cell in enumerate(place) if cell == (row, column)]
            assert inside
            parts.append(states[..., inside, :].mean(-2))
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("kind", [Autoregressive, BERT])
@pytest.mark.parametrize("norm", ["normed", "raw"])
@pytest.mark.parametrize(
    ("order", "grid"),
    [("raster", 1), ("raster", 2), ("raster", 3), ("column", 1), ("column", 2), ("column", 3), ("spiral", 2)],
)
def test_features_are_means_of_hidden_states_over_the_cells_of_the_picture(kind, norm, order, grid):
    module = network(kind, order)
    tokens = tokens_of(module)
    with torch.no_grad():
        found = module.features(tokens, [0, 1, 2], FeatureOptions(norm, grid))
    assert found.shape == (3, 3, grid**2 * WIDTH)
    np.testing.assert_allclose(found, cells(states(module, tokens, norm), order, grid), atol=2e-5, rtol=1e-4)


def test_raw_and_normed_features_differ_at_every_layer():
    module = network(Autoregressive, "raster")
    tokens = tokens_of(module)
    with torch.no_grad():
        raw, normed = (module.features(tokens, [0, 1, 2], FeatureOptions(norm)) for norm in ("raw", "normed"))
    assert ((raw - normed).abs().amax((1, 2)) > 0.1).all()


@pytest.mark.parametrize("order", ["raster", "column", "spiral"])
def test_a_grid_as_fine_as_the_picture_keeps_every_position_in_raster_order(order):
    module, side = network(Autoregressive, order), SIDES[order]
    tokens = tokens_of(module)
    with torch.no_grad():
        found = module.features(tokens, [1], FeatureOptions(grid=side))[0].unflatten(1, (side, side, WIDTH)).numpy()
    expected = states(module, tokens, "normed")[1]
    for position, (row, column) in enumerate(pixel_of(order, side)):
        np.testing.assert_allclose(found[:, row, column], expected[:, position], atol=2e-5, rtol=1e-4)


def test_the_mean_over_cells_of_equal_size_is_the_mean_over_positions():
    module = network(BERT, "random")
    tokens = tokens_of(module)
    with torch.no_grad():
        whole, quarters = (module.features(tokens, [0, 2], FeatureOptions(grid=grid)) for grid in (1, 2))
    torch.testing.assert_close(quarters.unflatten(2, (4, WIDTH)).mean(2), whole)


def test_in_mixed_precision_means_over_cells_are_as_exact_as_the_mean_over_positions():
    module = network(Autoregressive, "random")
    tokens = tokens_of(module)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole, quarters = (module.features(tokens, [0, 1, 2], FeatureOptions(grid=grid)) for grid in (1, 2))
    torch.testing.assert_close(quarters.unflatten(2, (4, WIDTH)).mean(2), whole)


@pytest.mark.parametrize("how", [FeatureOptions(masks=1), FeatureOptions("raw", 2, masks=3)], ids=["one", "three"])
def test_features_under_masks_are_the_mean_over_masked_forwards(how):
    module = network(BERT, "column", mask_share=0.3)
    tokens = tokens_of(module)
    with torch.no_grad():
        found = module.features(tokens, [0, 1, 2], how, torch.Generator().manual_seed(7))
    rng, expected = torch.Generator().manual_seed(7), 0
    for _ in range(how.masks):
        masked = torch.rand(tokens.shape, generator=rng) < 0.3
        assert masked.any()
        expected = expected + cells(states(module, tokens, how.norm, masked), "column", how.grid) / how.masks
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


def test_masks_belong_to_their_random_numbers_and_leave_the_image_whole_without():
    module = network(BERT, "raster")
    tokens = tokens_of(module)
    masked = FeatureOptions(masks=2)
    with torch.no_grad():
        one, again, other = (module.features(tokens, [1], masked, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        whole = module.features(tokens, [1], FeatureOptions(), torch.Generator().manual_seed(1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    np.testing.assert_allclose(whole, states(module, tokens, "normed")[[1]].mean(2), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "causal", "words"),
    [
        ({"masks": 1}, True, "--masks 1"),
        ({"masks": -1}, False, "--masks -1"),
        ({"grid": 0}, True, "--grid 0"),
        ({"grid": -2}, False, "--grid -2"),
        ({"grid": 9}, True, "--grid 9 .* 8"),
        ({"norm": "batch"}, True, "--norm batch"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, causal, words):
    with pytest.raises(UserError, match=words) as caught:
        FeatureOptions(**options).check((8, 8), causal)
    assert "\n" not in str(caught.value)


def test_all_options_in_range_are_taken():
    for grid in range(1, 9):
        FeatureOptions("raw", grid).check((8, 8), True)
    FeatureOptions(masks=5).check((8, 8), False)


def test_features_of_many_images_are_worth_compiling_on_cuda_alone():
    module, few, many = Autoregressive(PRESETS["S"]), 27_000, 28_000
    on_gpu, on_cpu = Compute("cuda", "bf16-mixed"), Compute("cpu", "bf16-mixed")
    assert [worth_compiling(module, images, on_gpu) for images in (few, many)] == [False, True]
    assert not worth_compiling(module, many, on_cpu)
