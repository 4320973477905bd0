"""One pixel after another: with a KV cache, eager or as one graph, it is the forward over the whole image."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from igpt.commands.sample import sample
from igpt.model.cache import Decoder, can_be_recorded
from igpt.model.sampling import generate
from igpt.model.token_step import functional_step
from igpt.model.transformer import PixelTransformer
from igpt.system.errors import UserError
from tests.conftest import randomised


def images(config, batch):
    return torch.randint(config.vocab_size, (batch, config.n_positions), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_step_of_the_graph_is_the_forward_over_the_whole_image(tiny, batch, norm):
    model, tokens = randomised(replace(tiny, norm=norm, qk_norm=norm == "rms")), images(tiny, batch)
    with torch.no_grad():
        expected, decoder = model(tokens, causal=True), Decoder(model, batch)
        decoder.next_logits(tokens[:, :2])  # sos and two pixels
        past = decoder.kv_cache[..., :3, :].clone()
        logits, new = functional_step(model, decoder.weights, tokens[:, 2], torch.tensor([3]), past)
        torch.testing.assert_close(logits, expected[:, 3], atol=1e-5, rtol=1e-5)
        decoder.next_logits(tokens[:, 2:3])
        torch.testing.assert_close(new, decoder.kv_cache[..., 3:4, :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("reach", [0, 9])
def test_the_step_that_cuda_records_is_the_forward_over_the_whole_image_however_often_it_runs(tiny, norm, reach):
    model, tokens = randomised(replace(tiny, norm=norm)), images(tiny, 3)
    with torch.no_grad():
        expected, decoder = model(tokens, causal=True), Decoder(model, 3)
        decoder.next_logits(tokens[:, :1])  # sos and a pixel
        for position in range(2, tiny.n_positions):
            step = max(reach, position + 1), tokens[:, position - 1], torch.tensor([position])
            for _ in range(2):
                torch.testing.assert_close(decoder.masked_step(*step), expected[:, position], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("device", "dtype", "images", "recorded"),
    [
        ("cuda", torch.float32, 32, True),
        ("cuda", torch.float32, 33, False),
        ("cuda", torch.bfloat16, 33, True),
        ("cpu", torch.bfloat16, 1, False),
    ],
)
def test_cuda_records_all_steps_but_those_of_many_images_in_float32(device, dtype, images, recorded):
    with FakeTensorMode():  # shapes alone, on a device that need not be there
        assert can_be_recorded(torch.empty(2, 2, images, 3, 100, 4, device=device, dtype=dtype)) == recorded


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_compiling_draws_the_same_pixels_with_one_graph_for_all_lengths(tiny, batch):
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    model = randomised(tiny)
    start = torch.empty(batch, 0, dtype=torch.int64)
    assert torch.equal(generate(model, start, seed=3, compile=True), generate(model, start, seed=3))
    assert counted["unique_graphs"] == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_the_step_is_one_graph_for_all_lengths_whatever_compiles_it(tiny, batch):
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    model, tokens = randomised(tiny), images(tiny, batch)
    with torch.inference_mode():
        expected, decoder = model(tokens, causal=True), Decoder(model, batch)
        decoder.compiled = torch.compile(functional_step, fullgraph=True, backend="aot_eager")
        logits = [decoder.next_logits(tokens[:, :0])]
        logits += [decoder.next_logits(tokens[:, first : first + 1]) for first in range(tokens.shape[1] - 1)]
    torch.testing.assert_close(torch.stack(logits, 1), expected, atol=1e-5, rtol=1e-5)
    assert counted["unique_graphs"] == 1


def test_the_compiled_step_that_cuda_records_is_the_forward_over_the_whole_image_by_one_graph(tiny):
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    model, tokens = randomised(replace(tiny, qk_norm=True)), images(tiny, 3)
    with torch.inference_mode():
        expected, decoder = model(tokens, causal=True), Decoder(model, 3)
        decoder.compiled = torch.compile(functional_step, fullgraph=True, backend="aot_eager")
        decoder.next_logits(tokens[:, :1])  # sos and a pixel
        for position in range(2, tiny.n_positions):
            step = 6 if position < 6 else 9, tokens[:, position - 1], torch.tensor([position])
            for _ in range(2):  # a recording calls it more than once
                logits = decoder.compiled_masked_step(*step)
                torch.testing.assert_close(logits, expected[:, position], atol=1e-5, rtol=1e-5)
    assert counted["unique_graphs"] == 1


def test_a_model_without_a_start_of_sequence_is_refused(tiny):
    with pytest.raises(ValueError, match="sos"):
        Decoder(PixelTransformer(replace(tiny, sos=False)), 1)


def test_bert_has_nothing_to_compile(digits_bert_run, tmp_path):
    with pytest.raises(UserError, match="--compile"):
        sample(str(digits_bert_run.checkpoint), str(tmp_path / "out.png"), compile=True)


@pytest.mark.parametrize(("batch", "compile"), [(1, False), (3, False), pytest.param(3, True, marks=pytest.mark.slow)])
def test_in_autocast_weights_and_cache_have_its_type_and_logits_are_about_those_of_float32(tiny, batch, compile):
    torch._dynamo.reset()
    model, tokens = randomised(tiny), images(tiny, batch)
    with torch.inference_mode():
        expected = model(tokens, causal=True)
        with torch.autocast("cpu", torch.bfloat16):
            decoder = Decoder(model, batch, compile)
            assert (decoder.compiled is not None) == compile
            logits = [decoder.next_logits(tokens[:, :0])]
            logits += [decoder.next_logits(tokens[:, first : first + 1]) for first in range(tokens.shape[1] - 1)]
    assert {decoder.kv_cache.dtype, decoder.weights.head.dtype, decoder.weights.blocks[0].qkv.dtype} == {torch.bfloat16}
    difference = (torch.stack(logits, 1).float() - expected).abs().max()
    assert 0 < difference < 0.1 * expected.std()
