"""What a network computes on a GPU is what it computes on the CPU."""

import pytest
import torch

from igpt.model.cache import Decoder
from igpt.model.features import FeatureOptions
from igpt.model.sampling import SamplingOptions, generate
from igpt.model.transformer import TransformerConfig
from igpt.modules import Autoregressive
from igpt.palette.palette import Palette
from tests.conftest import randomised
from tests.gpu.networks import COLORS, CPU, KINDS, SIDE, autocast, distance, images, network, on, tokens, training_step
from tests.reads import Waiting

LAYERS = [0, 1, 2, 3]
MIXED = [(torch.bfloat16, 0.05), (torch.float16, 0.01)]  # and how far from float32 a rounded step may end


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_has_the_loss_and_gradients_of_the_cpu(device, kind):
    loss, gradients = training_step(on(device, network(kind)), device)
    expected, wanted = training_step(network(kind), CPU)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    assert max(distance(gradients[name], wanted[name]) for name in wanted) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "far"), MIXED)
def test_a_step_in_mixed_precision_is_near_that_in_float32(device, kind, dtype, far):
    loss, gradients = training_step(on(device, network(kind)), device, dtype)
    expected, wanted = training_step(network(kind), CPU)
    assert loss == pytest.approx(expected, rel=far)
    assert all(one.dtype == torch.float32 for one in gradients.values())
    assert 0 < max(distance(gradients[name], wanted[name]) for name in wanted) < far


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_compiled_blocks_take_the_step_of_plain_ones(device, dtype):
    compiled, plain = (on(device, network(Autoregressive, compile=compile)) for compile in (True, False))
    compiled.compile_once()
    loss, gradients = training_step(compiled, device, dtype)
    expected, wanted = training_step(plain, device, dtype)
    near = 0.02 if dtype else 1e-4  # a compiled block rounds to bfloat16 at fewer places
    assert loss == pytest.approx(expected, rel=near)
    assert max(distance(gradients[name], wanted[name]) for name in wanted) < near


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [FeatureOptions(), FeatureOptions("raw", grid=2)], ids=["normed", "raw"])
@pytest.mark.parametrize(("dtype", "far"), [(None, 1e-5), (torch.bfloat16, 0.02)])
def test_features_of_every_layer_are_those_of_the_cpu(device, kind, how, dtype, far):
    with torch.no_grad():
        with autocast(device, dtype):
            found = on(device, network(kind)).features(tokens().to(device), LAYERS, how).cpu()
        expected = network(kind).features(tokens(), LAYERS, how)
    assert found.dtype == torch.float32
    assert max(map(distance, found, expected)) < far


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_is_as_surprising_as_on_the_cpu(device, kind):
    with torch.no_grad():
        found = on(device, network(kind)).surprise(tokens().to(device)).cpu()
        torch.testing.assert_close(found, network(kind).surprise(tokens()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["raster", "spiral"])
def test_the_likeliest_pixels_are_those_of_the_cpu(device, kind, order):
    module = network(kind, order=order)
    options = SamplingOptions(top_k=1, steps=9)
    region = torch.rand(8, 8, generator=torch.Generator().manual_seed(4)) < 0.6
    shown, drawn = on(device, module).complete(images().to(device), num=2, region=region.to(device), options=options)
    expected_shown, expected = module.complete(images(), num=2, region=region, options=options)
    assert torch.equal(drawn.cpu(), expected)
    assert torch.equal(shown.cpu(), expected_shown)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_reproduces_the_picture(device, kind):
    module = on(device, network(kind))
    first, again, other = (module.sample(4, SamplingOptions(seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("dtype", "far"), [(None, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("batch", [1, 3])
def test_pixel_by_pixel_the_logits_are_those_of_the_whole_image_on_the_cpu(device, batch, dtype, far):
    model = randomised(TransformerConfig(3, 64, 4, n_positions=300, vocab_size=COLORS), scale=0.15)
    tokens = torch.randint(COLORS, (batch, 300), generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        expected = model(tokens, causal=True)
        with autocast(device, dtype):
            decoder, moved = Decoder(on(device, model), batch), tokens.to(device)
            logits = [decoder.next_logits(moved[:, :1])]
            logits += [decoder.next_logits(moved[:, place : place + 1]) for place in range(1, 299)]
    found = torch.stack(logits, 1).float().cpu()
    assert distance(found, expected[:, 1:]) < far
    assert distance(found[:, -1], expected[:, -1]) < far


def test_drawing_waits_for_the_gpu_at_no_pixel(device):
    if device.type != "cuda":
        pytest.skip("only CUDA tells")
    model, start = on(device, network(Autoregressive)).transformer, tokens(2).to(device)

    def waits(first):
        counted, known = Waiting(), torch.arange(SIDE**2, device=device) < first
        with counted:
            generate(model, start, known=known, top_k=5, top_p=0.9)
        return sum(counted.found.values())

    waits(3)  # the first time of all, libraries make themselves ready
    assert 0 < waits(3) == waits(50) < 8  # which pixels are to be drawn, and the recording of a step


def test_drawing_again_and_again_records_steps_while_earlier_ones_are_garbage(device):
    model, start = on(device, network(Autoregressive)).transformer, tokens(2)[:, :50].to(device)
    expected = generate(model, start, seed=1)
    for _ in range(20):
        assert torch.equal(generate(model, start, seed=1), expected)


@pytest.mark.parametrize("colors", [COLORS, 512])
def test_images_become_the_tokens_and_tokens_the_images_of_the_cpu(device, colors):
    palette = Palette(torch.rand(colors, 3, generator=torch.Generator().manual_seed(6)) * 2 - 1)
    moved, pictures = on(device, palette), images(50)
    coded = moved.encode(pictures.to(device))
    assert coded.device.type == device.type
    assert torch.equal(coded.cpu(), palette.encode(pictures))
    assert torch.equal(moved.decode(coded).cpu(), palette.decode(coded.cpu()))
