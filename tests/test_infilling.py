"""BERT's iterative unmasking, against a NumPy version of it and what it must never do."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from igpt.model.sampling import SamplingOptions, infill, most_confident, unmasking_schedule
from igpt.model.transformer import TransformerConfig
from igpt.system.errors import UserError
from tests.conftest import randomised
from tests.reference import numpy_igpt


@pytest.fixture
def bert(tiny):
    return randomised(replace(tiny, sos=False))


def given(model, batch=4, share=0.6, seed=1):
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, model.config.n_positions)
    return torch.randint(model.config.vocab_size, shape, generator=rng), torch.rand(shape, generator=rng) < share


@pytest.mark.parametrize("steps", [1, 2, 5, 64])
def test_known_pixels_never_change_and_unknown_ones_are_colours_of_the_palette(bert, steps):
    tokens, unknown = given(bert)
    filled = infill(bert, tokens, unknown, SamplingOptions(steps=steps))
    assert torch.equal(filled[~unknown], tokens[~unknown])
    assert ((filled >= 0) & (filled < bert.config.vocab_size)).all()
    assert not torch.equal(filled, tokens)


def test_what_stands_at_unknown_positions_has_no_say(bert):
    tokens, unknown = given(bert)
    other = torch.where(unknown, (tokens + 3) % bert.config.vocab_size, tokens)
    assert torch.equal(
        infill(bert, tokens, unknown, SamplingOptions(steps=3)), infill(bert, other, unknown, SamplingOptions(steps=3))
    )


def test_a_seed_reproduces_the_infilling_and_leaves_other_randomness_alone(bert):
    tokens, unknown = given(bert, batch=8)
    state = torch.get_rng_state()
    first, again, other = (infill(bert, tokens, unknown, SamplingOptions(steps=4, seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_infilling_without_settings_follows_the_whole_distribution_in_64_passes_from_seed_0(bert):
    bert = randomised(replace(bert.config, n_positions=100))
    tokens, unknown = given(bert, batch=2, share=1)
    told = infill(bert, tokens, unknown, SamplingOptions(steps=64, temperature=1.0, top_k=0, top_p=1.0, seed=0))
    assert torch.equal(infill(bert, tokens, unknown), told)
    assert not torch.equal(infill(bert, tokens, unknown, SamplingOptions(steps=65)), told)


def test_one_unknown_pixel_becomes_the_likeliest_of_the_masked_forward(bert):
    tokens, _ = given(bert)
    unknown = torch.zeros_like(tokens, dtype=torch.bool)
    unknown[torch.arange(4), torch.tensor([0, 3, 8, 5])] = True
    with torch.no_grad():
        likeliest = bert(tokens, causal=False, masked=unknown).argmax(-1)
    assert torch.equal(infill(bert, tokens, unknown, SamplingOptions(top_k=1))[unknown], likeliest[unknown])


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_greedy_infilling_agrees_with_unmasking_in_numpy(bert, steps):
    """One image at a time: the likeliest colours of NumPy's forward, the surest of them fixed first."""
    weights = {name: value.detach().numpy() for name, value in bert.state_dict().items()}
    tokens, unknown = given(bert, batch=3)
    filled = infill(bert, tokens, unknown, SamplingOptions(steps=steps, top_k=1)).numpy()
    for image, masked, found in zip(tokens.numpy(), unknown.numpy(), filled, strict=True):
        image, masked = image.copy(), masked.copy()
        count = masked.sum()
        passes = min(steps, count)
        for step in range(1, passes + 1):
            logits, _ = numpy_igpt.run(weights, image, n_layers=3, heads=3, causal=False, masked=masked)
            shares = np.array([numpy_igpt.softmax(row) for row in logits])
            left = round(count * math.cos(math.pi * step / (2 * passes)))
            fix = max(1, masked.sum() - max(left, passes - step))
            surest = sorted(np.flatnonzero(masked), key=lambda i: -shares[i].max())[:fix]
            for position in surest:
                image[position], masked[position] = shares[position].argmax(), False
        assert not masked.any()
        np.testing.assert_array_equal(found, image)


def test_a_single_unknown_pixel_follows_the_model_distribution():
    model = randomised(TransformerConfig(1, 8, 2, 4, 5, sos=False))
    tokens = torch.tensor([[1, 2, 0, 4]]).expand(20_000, -1)
    unknown = (torch.arange(4) == 2).expand_as(tokens)
    with torch.no_grad():
        expected = model(tokens[:1], causal=False, masked=unknown[:1])[0, 2].softmax(-1)
    drawn = infill(model, tokens, unknown, SamplingOptions(seed=1))[:, 2]
    torch.testing.assert_close(torch.bincount(drawn, minlength=5) / 20_000, expected, atol=0.015, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 513])
@pytest.mark.parametrize("steps", [1, 2, 7, 64, 1000])
def test_the_schedule_fixes_every_pixel_once_and_at_least_one_a_pass(count, steps):
    schedule = unmasking_schedule(count, steps)
    assert sum(schedule) == count
    assert min(schedule) >= 1
    assert len(schedule) == min(steps, count)


def test_the_schedule_begins_with_few():
    assert unmasking_schedule(0, 8) == []
    assert unmasking_schedule(5, 1) == [5]
    assert unmasking_schedule(5, 9) == [1, 1, 1, 1, 1]
    assert unmasking_schedule(100, 4) == [8, 21, 33, 38]  # 100 cos(pi/8) = 92.4, cos(pi/4) 70.7, cos(3pi/8) 38.3


def test_images_with_more_and_fewer_unknown_pixels_go_side_by_side(bert):
    """Each as alone: drawing greedily, nothing of one image enters another."""
    tokens, _ = given(bert, batch=3)
    unknown = torch.arange(9) >= torch.tensor([[9], [7], [1]])
    together = infill(bert, tokens, unknown, SamplingOptions(steps=3, top_k=1))
    assert torch.equal(together[0], tokens[0])
    for row in range(3):
        alone = infill(bert, tokens[row : row + 1], unknown[row : row + 1], SamplingOptions(steps=3, top_k=1))
        assert torch.equal(together[row], alone[0])


def test_the_most_confident_are_chosen_and_the_earlier_on_a_tie():
    confidence = torch.tensor([[0.1, 0.9, 0.5, 0.9], [-1.0, 0.2, -1.0, 0.3]])
    chosen = most_confident(confidence, torch.tensor([1, 2]))
    assert chosen.tolist() == [[False, True, False, False], [False, True, False, True]]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": 0.0}, {"top_k": -1}, {"top_p": 1.5}])
def test_settings_that_make_no_drawing_are_refused_by_name(bert, wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        infill(bert, *given(bert), SamplingOptions(**wrong))
