"""Filling, completing and drawing anew, the same way for AR and BERT; and how surprising pixels are."""

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.model.objectives import covering_masks, masked_pixel_loss
from igpt.model.order import pixel_order
from igpt.model.sampling import SamplingOptions
from igpt.model.transformer import TransformerConfig
from igpt.modules import BERT, Autoregressive
from igpt.palette.palette import Palette
from tests.reference import numpy_igpt

ORDERS = ["raster", "spiral"]
SIDE = 4


def module_of(kind, order="raster", **options):
    torch.manual_seed(0)
    module = kind(TransformerConfig(2, 8, 2, SIDE * SIDE, 5, sos=kind is Autoregressive), order=order, **options)
    module.palette.load_state_dict(Palette(torch.rand(5, 3) * 2 - 1).state_dict())
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def images_for(count=3):
    return torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


both = pytest.mark.parametrize("kind", [Autoregressive, BERT])


@both
@pytest.mark.parametrize("order", ORDERS)
def test_a_region_is_drawn_anew_and_everything_around_it_stays(kind, order):
    module, images = module_of(kind, order), images_for()
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[1:3, 1:4] = True
    pictures, tokens = module.complete(images, num=2, region=region)
    assert pictures.shape == (3, 4, 3, SIDE, SIDE)
    original = module.palette.encode(images)
    outside = ~region.flatten()
    assert torch.equal(tokens[:, :, outside], original[:, None, outside].expand(-1, 2, -1))
    grey = (pictures[:, 0] == 128).all(1)
    assert grey[:, region].all()
    assert not grey[:, ~region].any()
    assert torch.equal(pictures[:, 1:3], module.palette.decode(tokens.flatten(0, 1)).unflatten(0, (3, 2)))
    assert torch.equal(pictures[:, 3], module.palette.decode(original))


@both
@pytest.mark.parametrize("order", ORDERS)
def test_without_a_region_the_later_half_of_the_order_is_drawn(kind, order):
    module, images = module_of(kind, order), images_for()
    _, tokens = module.complete(images, num=3)
    kept = pixel_order(order, SIDE)[:8]
    assert torch.equal(tokens[:, :, kept], module.palette.encode(images)[:, None, kept].expand(-1, 3, -1))


@both
def test_completing_the_whole_region_is_drawing_from_nothing(kind):
    module, whole = module_of(kind), torch.ones(SIDE, SIDE, dtype=torch.bool)
    _, tokens = module.complete(images_for(), region=whole, options=SamplingOptions(seed=4))
    assert torch.equal(tokens[:, 0], module.sample(3, SamplingOptions(seed=4)))


@both
@pytest.mark.parametrize("training", [True, False])
def test_drawing_leaves_the_mode_and_other_randomness_alone(kind, training):
    module = module_of(kind).train(training)
    state = torch.get_rng_state()
    module.sample(2, SamplingOptions(seed=1))
    module.complete(images_for(), options=SamplingOptions(seed=1))
    assert module.training is training
    assert module.transformer.training is training
    assert torch.equal(torch.get_rng_state(), state)


def reference(module, tokens, **how):
    """Surprise of one image by NumPy."""
    weights = {name: value.detach().numpy() for name, value in module.transformer.state_dict().items()}
    logits, _ = numpy_igpt.run(weights, tokens, n_layers=2, heads=2, causal=module.causal, **how)
    return np.array([-np.log(numpy_igpt.softmax(row)[token]) for row, token in zip(logits, tokens, strict=True)])


@torch.no_grad()
def test_surprise_of_ar_is_the_numpy_reference_and_its_mean_the_loss():
    module = module_of(Autoregressive, "spiral")
    tokens = module.encode(images_for())
    nats = module.surprise(tokens)
    for image, found in zip(tokens.numpy(), nats.numpy(), strict=True):
        np.testing.assert_allclose(found, reference(module, image), atol=1e-5, rtol=1e-5)
    assert nats.mean().item() == pytest.approx(module.loss(tokens, rng_of(0)).item(), rel=1e-6)


@torch.no_grad()
def test_surprise_of_bert_scores_every_pixel_while_it_is_hidden():
    module = module_of(BERT, mask_share=0.3)
    tokens = module.encode(images_for())
    nats = module.surprise(tokens, seed=2)
    masks = covering_masks(SIDE * SIDE, 0.3, rng_of(2))
    for image, found in zip(tokens.numpy(), nats.numpy(), strict=True):
        for mask in masks.numpy():
            expected = reference(module, image, masked=mask)[mask]
            np.testing.assert_allclose(found[mask], expected, atol=1e-5, rtol=1e-5)
    losses = [masked_pixel_loss(module.transformer(tokens, causal=False, masked=m.expand_as(tokens)), tokens,
                                m.expand_as(tokens)) for m in masks]  # fmt: skip
    assert nats.mean().item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)  # 4 masks of 4 pixels


@torch.no_grad()
def test_the_surprise_of_an_image_does_not_depend_on_the_others():
    for kind in (Autoregressive, BERT):
        module = module_of(kind)
        tokens = module.encode(images_for())
        torch.testing.assert_close(module.surprise(tokens)[1:2], module.surprise(tokens[1:2]))


@pytest.mark.parametrize(("positions", "share", "count"), [(16, 0.15, 7), (64, 0.15, 7), (1024, 0.5, 2), (4, 0.1, 4)])
def test_covering_masks_hide_every_position_once_in_parts_of_equal_size(positions, share, count):
    masks = covering_masks(positions, share, rng_of(0))
    assert masks.shape == (count, positions)
    assert (masks.sum(0) == 1).all()
    sizes = masks.sum(1)
    assert sizes.max() - sizes.min() <= 1
    assert not torch.equal(masks, covering_masks(positions, share, rng_of(1))) or positions < 8
    assert torch.equal(masks, covering_masks(positions, share, rng_of(0)))
