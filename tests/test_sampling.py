import pytest
import torch

from igpt.model.cache import Decoder
from igpt.model.sampling import SamplingOptions, filter_logits, generate, sample
from igpt.model.transformer import TransformerConfig
from igpt.system.errors import UserError
from tests.conftest import randomised


def empty(count):
    return torch.empty(count, 0, dtype=torch.int64)


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_cached_and_uncached_logits_agree(tiny, prefix):
    model = randomised(tiny)
    tokens = torch.randint(tiny.vocab_size, (3, tiny.n_positions), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(tokens, causal=True)
        decoder = Decoder(model, len(tokens))
        logits = decoder.next_logits(tokens[:, :prefix])
        for i in range(prefix, tiny.n_positions):
            torch.testing.assert_close(logits, expected[:, i], atol=1e-5, rtol=1e-5)
            if i + 1 < tiny.n_positions:
                logits = decoder.next_logits(tokens[:, i : i + 1])


def test_cached_and_uncached_logits_agree_where_blocks_attend(tiny, monkeypatch):
    monkeypatch.setattr("igpt.model.attention.dense.HALF", (torch.float32,))
    test_cached_and_uncached_logits_agree(tiny, 4)


def test_greedy_drawing_takes_the_likeliest_pixel_of_the_uncached_forward(tiny):
    model = randomised(tiny)
    drawn = generate(model, empty(2), top_k=1)
    with torch.no_grad():
        assert torch.equal(model(drawn, causal=True).argmax(-1), drawn)


def test_a_seed_reproduces_the_picture_and_leaves_other_randomness_alone(tiny):
    model = randomised(tiny)
    state = torch.get_rng_state()
    first, again, other = (generate(model, empty(8), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_picture_drawn_without_settings_follows_the_whole_distribution_from_seed_0(tiny):
    model = randomised(tiny)
    told = generate(model, empty(8), temperature=1.0, top_k=0, top_p=1.0, seed=0, compile=False)
    assert torch.equal(generate(model, empty(8)), told)


def test_a_completion_begins_with_its_prefix(tiny):
    prefix = torch.tensor([[1, 2, 3, 4], [6, 5, 0, 1]])
    drawn = generate(randomised(tiny), prefix)
    assert torch.equal(drawn[:, :4], prefix)
    assert drawn.shape == (2, tiny.n_positions)


def test_a_whole_image_as_prefix_comes_back_unchanged(tiny):
    whole = torch.arange(tiny.n_positions)[None] % tiny.vocab_size
    assert torch.equal(generate(randomised(tiny), whole), whole)


def tokens_for(config, batch, seed=3):
    return torch.randint(config.vocab_size, (batch, config.n_positions), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [0, 1, 4, 9])
def test_knowing_the_prefix_alone_is_the_plain_continuation_bit_for_bit(tiny, length):
    model, whole = randomised(tiny), tokens_for(tiny, 3)
    known = torch.arange(tiny.n_positions) < length
    plain = generate(model, whole[:, :length], temperature=1.3, seed=7)
    assert torch.equal(generate(model, whole, known=known, temperature=1.3, seed=7), plain)
    generator, expected, decoder = torch.Generator().manual_seed(7), whole.clone(), Decoder(model, len(whole))
    with torch.no_grad():
        fresh = whole[:, :length]
        for position in range(length, tiny.n_positions):  # the loop as it stands in a textbook
            shares = (decoder.next_logits(fresh) / 1.3).softmax(-1)
            fresh = expected[:, position : position + 1] = torch.multinomial(shares, 1, generator=generator)
    assert torch.equal(plain, expected)


def test_any_known_pixels_stay_and_the_others_are_drawn_given_those_before_them(tiny):
    model, given = randomised(tiny), tokens_for(tiny, 5)
    known = torch.rand(given.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    assert not (known == known[0]).all()  # every image has a region of its own
    drawn = generate(model, given, known=known, top_k=1)
    assert torch.equal(drawn[known], given[known])
    with torch.no_grad():
        likeliest = model(drawn, causal=True).argmax(-1)
    assert torch.equal(drawn[~known], likeliest[~known])


def test_images_that_memory_cannot_hold_at_once_are_drawn_in_parts(tiny, monkeypatch):
    model, given = randomised(tiny), tokens_for(tiny, 7)
    known = torch.rand(given.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    whole = generate(model, given, known=known, top_k=1)
    image = 2 * tiny.n_layers * tiny.n_positions * tiny.d_model * 4
    monkeypatch.setattr("igpt.model.sampling.free_memory", lambda _: 2 * 3 * image + 1)
    made = []
    monkeypatch.setattr("igpt.model.sampling.Decoder", lambda *args: made.append(args[1]) or Decoder(*args))
    assert torch.equal(generate(model, given, known=known, top_k=1), whole)
    assert made == [3, 3, 1]
    free = generate(model, empty(7), seed=3)
    assert torch.equal(free, generate(model, empty(7), seed=3))
    assert len(free[:3].unique(dim=0)) > 1  # parts do not begin with the same randomness
    assert not torch.equal(free[:3], free[3:6])


def test_parts_of_a_batch_are_told_their_own_classes(monkeypatch):
    model = randomised(TransformerConfig(1, 8, 2, 4, 5, conditions=3))
    labels = SamplingOptions(top_k=1, labels=(0, 2, 1, 0, 2), guidance=1.5)
    whole = sample(model, empty(5), options=labels)
    monkeypatch.setattr("igpt.model.sampling.free_memory", lambda _: 0.0)
    assert torch.equal(sample(model, empty(5), options=labels), whole)


def test_known_pixels_further_on_have_no_say_in_what_is_drawn(tiny):
    model, given = randomised(tiny), tokens_for(tiny, 4)
    known = torch.tensor([True, True, False, False, True, False, True, True, True])
    changed = given.clone()
    changed[:, 6:] = (given[:, 6:] + 1) % tiny.vocab_size
    assert torch.equal(
        generate(model, given, known=known, seed=2)[:, :6], generate(model, changed, known=known, seed=2)[:, :6]
    )


def test_drawn_first_pixels_follow_the_model_distribution():
    config = TransformerConfig(1, 8, 2, 4, 5)
    model = randomised(config)
    with torch.no_grad():
        expected = model(torch.zeros(1, 4, dtype=torch.int64), causal=True)[0, 0].softmax(-1)
    drawn = generate(model, empty(20_000), seed=1)[:, 0]
    frequency = torch.bincount(drawn, minlength=5) / len(drawn)
    torch.testing.assert_close(frequency, expected, atol=0.015, rtol=0)


LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.39}, [0.0, 1.0, 0.0, 0.0]),
        ({"top_p": 0.01}, [0.0, 1.0, 0.0, 0.0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
    ],
)
def test_temperature_top_k_and_top_p_shape_the_distribution(settings, expected):
    torch.testing.assert_close(filter_logits(LOGITS, SamplingOptions(**settings)).softmax(-1), torch.tensor([expected]))


def test_a_top_p_of_one_keeps_colours_too_unlikely_for_the_sum_to_show():
    logits = torch.tensor([[0.0, -40.0, -50.0, -45.0]])
    torch.testing.assert_close(filter_logits(logits, SamplingOptions(top_p=1.0)), logits)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_settings_that_make_no_distribution_are_refused_by_name(tiny, wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        generate(randomised(tiny), empty(1), **wrong)
