"""Patterns, biases by offsets and rotary positions: what is seen, the numbers, and decoding with what is kept."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igpt.model import Decoder, PixelTransformer, SamplingOptions, TransformerConfig, pixel_order, sample
from igpt.model.attention import tiles
from igpt.model.attention.flex import block_mask, flex_attend
from igpt.model.attention.layers import Layout, Plan, kept_in
from igpt.model.attention.patterns import patterns_of
from igpt.system import UserError

PATTERNS = {
    "rows": [{"pattern": "rows", "k": 1}],
    "window": [{"pattern": "window", "k": 1}],
    "axial": [{"pattern": "axial"}],
    "strided": [{"pattern": "strided"}],
    "strided by three": [{"pattern": "strided", "stride": 3, "part": "both"}],
    "fixed": [{"pattern": "fixed", "c": 2}],
    "lsh": [{"pattern": "lsh", "buckets": 4, "rounds": 2, "chunk": 3}, {"pattern": "rows", "k": 1}],
    "by head": [[{"pattern": "window", "k": 2}, {"pattern": "strided", "part": "column"}], "dense"],
}


def sees(entry, causal, shape, order):
    """Which position sees which, written out from the definitions: bool `(T, T)`."""
    rows, columns = shape
    kind, k, part = entry["pattern"], entry.get("k"), entry.get("part", "both")
    stride, c = entry.get("stride") or columns, entry.get("c", 8)
    seen = np.zeros((rows * columns, rows * columns), bool)
    for (i, p), (j, q) in itertools.product(enumerate(order), repeat=2):
        down, right = abs(p // columns - q // columns), abs(p % columns - q % columns)
        either = {
            "dense": (True, True),
            "rows": (down <= (k or 0), False),
            "window": (down <= (k or 0) and right <= (k or 0), False),
            "axial": (down == 0, right == 0),
            "strided": (abs(p - q) < stride, (p - q) % stride == 0),
            "fixed": (p // stride == q // stride, q % stride >= stride - c),
        }[kind]
        by_pattern = {"row": either[0], "column": either[1], "both": any(either)}[part]
        seen[i, j] = i == j or (by_pattern and not (causal and j > i))
    return torch.from_numpy(seen)


def entries():
    side = st.integers(1, 3)
    part = st.sampled_from(["row", "column", "both"])
    return st.one_of(
        st.fixed_dictionaries({"pattern": st.sampled_from(["rows", "window"]), "k": side}),
        st.fixed_dictionaries({"pattern": st.just("axial"), "part": part}),
        st.fixed_dictionaries({"pattern": st.just("strided"), "stride": st.one_of(st.none(), side), "part": part}),
        st.fixed_dictionaries({"pattern": st.just("fixed"), "c": st.just(1), "part": part}),
        st.just({"pattern": "dense"}),
    )


@given(
    heads=st.lists(entries(), min_size=1, max_size=2),
    rows=st.integers(1, 5),
    columns=st.integers(3, 6),
    batch=st.integers(1, 2),
    causal=st.booleans(),
    name=st.sampled_from(["raster", "column"]),
    biased=st.booleans(),
    tile=st.sampled_from([4, 128]),
)
@settings(max_examples=60, deadline=None)
def test_every_pattern_is_dense_attention_under_its_mask_with_its_gradients(
    heads, rows, columns, batch, causal, name, biased, tile
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.cut, "__defaults__", (tile,))
        grid = torch.arange(rows * columns).view(rows, columns)
        order = (grid.T if name == "column" else grid).flatten()
        rng = torch.Generator().manual_seed(rows)
        q, k, v = (torch.randn(batch, 2, rows * columns, 3, generator=rng).double() for _ in range(3))
        table = torch.randn(2, (2 * rows - 1) * (2 * columns - 1), generator=rng).double() if biased else None
        down = (order // columns)[:, None] - order // columns
        right = (order % columns)[:, None] - order % columns
        masks = [sees(heads[head % len(heads)], causal, (rows, columns), order.tolist()) for head in range(2)]
        parts = [part.requires_grad_() for part in (q, k, v, table) if part is not None]
        scores = q @ k.transpose(2, 3) / math.sqrt(3)
        if table is not None:
            scores = scores + table[:, (down + rows - 1) * (2 * columns - 1) + right + columns - 1]
        expected = scores.masked_fill(~torch.stack(masks), -math.inf).softmax(-1) @ v
        wanted = torch.autograd.grad(expected.sin().sum(), parts)
        patterns = [patterns_of([heads])[0][head % len(heads)] for head in range(2)]
        layout = Layout(order // columns, order % columns, (rows, columns))
        single = [part.detach().float().requires_grad_() for part in parts]
        found = layout.attend(*single[:3], patterns, causal, single[3] if biased else None)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        for one, other in zip(torch.autograd.grad(found.sin().sum(), single), wanted, strict=True):
            torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "lsh"])
def test_the_kernel_for_cuda_is_told_of_the_same_mask_and_bias(name, biased):
    """FlexAttention, whose plain form for CPUs has no gradients, is given what it is given on a card."""
    q, k, v = torch.randn(3, 2, 2, 16, 4).unbind()
    bias = torch.randn(1, 49).expand(2, -1) if biased else None
    layout = Layout(torch.arange(16) // 4, torch.arange(16) % 4, (4, 4))
    for pattern in itertools.chain(*patterns_of(PATTERNS[name])):
        picture = layout.picture(True, q.device)
        found = flex_attend(q, k, v, block_mask(pattern, picture), picture, bias)
        torch.testing.assert_close(found, layout.attend(q, k, v, [pattern] * 2, True, bias), atol=1e-5, rtol=1e-5)


@pytest.fixture(params=[*PATTERNS, "bias", "shared_bias", "rope", "bias by rows", "rope in a window", "normed",
                        "normed rope", "normed bias by rows"])  # fmt: skip
def config(request):
    """A small network of 4x4 pictures whose logits depend on everything that they may depend on."""
    name = request.param.removeprefix("normed").strip()
    positions, _, where = name.partition(" by " if "bias by" in name else " in a ")
    attention = PATTERNS.get(name) or PATTERNS.get(where)
    kind = positions if positions in ("bias", "shared_bias", "rope") else None
    normed = True if "normed" in request.param else None
    return TransformerConfig(3, 16, 2, 16, 5, attention=attention, positions=kind, qk_norm=normed)


def network(config, order="raster"):
    torch.manual_seed(0)
    model = PixelTransformer(config, pixel_order(order, math.isqrt(config.n_positions)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


@pytest.mark.parametrize("order", ["raster", "column", "spiral", "random"])
def test_logits_of_pixel_i_do_not_depend_on_pixel_i_or_later(config, order):
    model = network(config, order)
    tokens = torch.randint(5, (2, 16))
    with torch.no_grad():
        logits = model(tokens, causal=True)
        for i in range(16):
            other = tokens.clone()
            other[:, i:] = (other[:, i:] + 1 + torch.randint(4, (2, 16 - i))) % 5
            assert torch.equal(model(other, causal=True)[:, : i + 1], logits[:, : i + 1])


@pytest.mark.parametrize("order", ["raster", "spiral"])
@pytest.mark.parametrize("prefix", [0, 1, 7])
def test_greedy_samples_with_the_cache_are_those_without(config, order, prefix):
    model, start = network(config, order), torch.randint(5, (3, prefix))
    found = sample(model, start, options=SamplingOptions(top_k=1))
    tokens = torch.zeros(3, 16, dtype=torch.int64)
    tokens[:, :prefix] = start
    with torch.no_grad():
        for position in range(prefix, 16):
            tokens[:, position] = model(tokens, causal=True)[:, position].argmax(-1)
    assert torch.equal(found, tokens)


def test_cached_logits_are_those_of_the_whole_sequence(config):
    model, tokens = network(config), torch.randint(5, (2, 16))
    expected = model(tokens, causal=True)
    decoder = Decoder(model, 2)
    for position in range(16):
        fresh = tokens[:, :0] if position == 0 else tokens[:, position - 1 : position]
        torch.testing.assert_close(decoder.next_logits(fresh), expected[:, position], atol=1e-5, rtol=1e-5)


def test_bert_sees_what_the_pattern_lets_it_see_on_all_sides(config):
    """One block: a position's logits depend on exactly the positions that its heads see."""
    if config.attention and config.attention[0] == PATTERNS["lsh"][0]:
        pytest.skip("hashing is defined for AR alone")
    model = network(replace(config, sos=False, n_layers=1))
    tokens = torch.randint(5, (1, 16))
    with torch.no_grad():
        logits = model(tokens, causal=False)[0]
        for j in range(16):
            other = tokens.clone()
            other[0, j] = (other[0, j] + 1) % 5
            changed = (model(other, causal=False)[0] != logits).any(1)
            entry = (config.attention or ["dense"])[0]
            heads = entry if isinstance(entry, list) else [entry]
            full = [{"pattern": head} if isinstance(head, str) else head for head in heads]
            if not isinstance(entry, list) and full[0]["pattern"] in ("axial", "strided", "fixed"):
                full = [{"part": "row"} | full[0]]  # the first of two layers
            seen = torch.stack([sees(head, False, (4, 4), range(16)) for head in full]).any(0)
            assert torch.equal(changed, seen[:, j])


def test_gradients_reach_every_weight(config):
    model = network(config).train()
    model(torch.randint(5, (2, 16)), causal=True).sin().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_activation_checkpointing_changes_no_gradient(config):
    grads = []
    for again in (False, True):
        model = network(config).train()
        model.activation_checkpointing = again
        torch.manual_seed(1)
        model(torch.randint(5, (2, 16)), causal=True).sin().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ("entry", "slots"),
    [
        ({"pattern": "rows", "k": 0}, 8),
        ({"pattern": "rows", "k": 2}, 3 * 8),
        ({"pattern": "window", "k": 1}, 8 + 2),
        ({"pattern": "axial", "part": "row"}, 8),
        ({"pattern": "axial", "part": "column"}, 8 * 7 + 1),  # the last row's are read by none but themselves
        ({"pattern": "strided", "stride": 5, "part": "row"}, 5),
        ({"pattern": "dense"}, 64),
    ],
)
def test_the_cache_keeps_only_what_a_later_position_still_sees(entry, slots):
    layout = Layout(torch.arange(64) // 8, torch.arange(64) % 8, (8, 8))
    plan = Plan(tuple(patterns_of([[entry]])[0]), layout.picture(True, torch.device("cpu")))
    assert plan.size == slots


def test_no_slot_is_used_again_before_its_last_reader():
    rng = torch.Generator().manual_seed(0)
    seen = torch.rand(40, 40, generator=rng).tril() > 0.7
    seen |= torch.eye(40, dtype=torch.bool)
    slots, size = kept_in(seen)
    kept = {}
    for position in range(40):
        kept[int(slots[position])] = position
        for key in seen[position].nonzero().flatten().tolist():
            assert kept[int(slots[key])] == key
    assert size < 40


WRONG = {
    "a pattern that sees nothing": ([{"pattern": "rows", "k": -1}], "rows: k is -1"),
    "a number that is none": ([{"pattern": "window", "k": "two"}], "window: k is 'two'"),
    "a stride larger than the": (
        [{"pattern": "strided", "stride": 17}],
        "stride 17 is larger than the",
    ),
    "a summary longer than the stride": ([{"pattern": "fixed", "c": 5}], "c 5 is more than its stride 4"),
    "no such pattern": ([{"pattern": "spots"}], "there is no pattern 'spots'; choose dense, rows"),
    "no such field": ([{"pattern": "rows", "width": 3}], "rows has no 'width'; it has k"),
    "no such part": ([{"pattern": "axial", "part": "diagonal"}], "part is 'diagonal'"),
    "an odd number of buckets": ([{"pattern": "lsh", "buckets": 7}], "lsh: buckets is 7; it must be even"),
    "no round": ([{"pattern": "lsh", "rounds": 0}], "lsh: rounds is 0"),
    "hashing of one head": ([["lsh", "dense"]], "lsh is of a whole layer"),
    "no list": ("rows", "must be a list of patterns"),
    "an empty list": ([], "must be a list of patterns"),
    "no heads": ([[]], "empty list of heads"),
}


@pytest.mark.parametrize("name", WRONG)
def test_patterns_that_make_no_sense_are_refused_in_one_line(name):
    attention, line = WRONG[name]
    with pytest.raises(UserError, match=line) as found:
        TransformerConfig(1, 8, 2, 16, 5, attention=attention)
    assert "\n" not in str(found.value)
    assert "transformer.attention" in str(found.value)


def test_hashing_is_refused_where_it_is_not_defined():
    with pytest.raises(UserError, match="lsh is defined for AR alone"):
        TransformerConfig(1, 8, 2, 16, 5, sos=False, attention=["lsh"])
    with pytest.raises(UserError, match="positions rope is not defined for lsh"):
        TransformerConfig(1, 8, 2, 16, 5, attention=["lsh"], positions="rope")
    with pytest.raises(UserError, match="qk_norm true is not defined for lsh"):
        TransformerConfig(1, 8, 2, 16, 5, attention=["lsh"], qk_norm=True)


def test_patterns_need_to_know_rows_and_columns():
    with pytest.raises(UserError, match="n_positions 12 is no square; patterns and offsets need"):
        TransformerConfig(1, 8, 2, 12, 5, attention=["rows"])
    assert TransformerConfig(1, 8, 2, 12, 5, attention=["rows"], grid=(3, 4)).shape == (3, 4)


def test_configs_without_patterns_say_nothing_about_them():
    assert set(TransformerConfig().to_dict()) == {
        "n_layers", "d_model", "n_heads", "n_positions", "vocab_size", "norm", "sos"
    }  # fmt: skip


def test_normed_queries_and_keys_do_not_grow_with_their_weights():
    config = TransformerConfig(2, 16, 2, 16, 5, positions="rope", qk_norm=True)
    model, tokens = network(config), torch.randint(5, (2, 16))
    with torch.no_grad():
        before = model(tokens, causal=True)
        for block in model.blocks:
            block.attn.qkv.weight[:32] *= 50.0
        torch.testing.assert_close(model(tokens, causal=True), before, atol=1e-4, rtol=1e-4)


def test_without_the_norm_a_network_is_the_one_of_earlier_versions():
    plain, told = TransformerConfig(2, 16, 2, 16, 5), TransformerConfig(2, 16, 2, 16, 5, qk_norm=False)
    assert told == plain
    assert "qk_norm" not in plain.to_dict()
    assert TransformerConfig(2, 16, 2, 16, 5, qk_norm=True).to_dict()["qk_norm"] is True
    assert not [name for name in PixelTransformer(plain).state_dict() if "q_norm" in name or "k_norm" in name]
