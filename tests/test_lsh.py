"""Hashed attention against dense attention, a slow one in NumPy, and Reformer's; its causality and its decoding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from igpt.model.attention.lsh import buckets_of, keys_of, lsh_attend, lsh_step, rotations

KINDS = [  # buckets, rounds, chunk, positions
    (2, 1, 1, 7),
    (4, 2, 3, 17),
    (2, 3, 4, 32),
    (16, 2, 2, 40),
    (8, 4, 16, 9),
]


def drawn(shape, seed=0, dtype=torch.float32):
    """Queries and values; some queries repeat earlier ones, so that buckets are of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    qk, v = (torch.randn(shape, generator=generator) for _ in range(2))
    qk[:, :, 1::3] = qk[:, :, :1]
    return (qk * 2).to(dtype), v.to(dtype)


def dense(qk, v):
    """Masked dense attention of shared queries and keys."""
    length, width = qk.shape[2:]
    keys = qk / (qk.square().mean(-1, keepdim=True) + 1e-6).sqrt() / math.sqrt(width)
    scores = qk @ keys.transpose(2, 3)
    scores = scores.masked_fill(torch.eye(length, dtype=torch.bool), -1e5)
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    return scores.softmax(-1) @ v


def reference(qk, v, turned, chunk):
    """Position by position and round by round, in NumPy and float64; the rounds by the logsumexp of their scores."""
    qk, v, turned = (part.double().numpy() for part in (qk, v, turned))
    out = np.zeros_like(v)
    for b, h in np.ndindex(qk.shape[:2]):
        x, length = qk[b, h], qk.shape[2]
        keys = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) / math.sqrt(x.shape[-1])
        for i in range(length):
            mixed, sums = [], []
            for r in range(turned.shape[2]):
                products = x @ turned[h, :, r]
                bucket = np.concatenate([products, -products], 1).argmax(1)
                members = [j for j in range(i + 1) if bucket[j] == bucket[i]]
                begin = max(0, ((len(members) - 1) // chunk - 1) * chunk)
                seen = members[begin:]
                scores = np.array([-1e5 if j == i else x[i] @ keys[j] for j in seen])
                weights = np.exp(scores - scores.max())
                mixed.append(weights @ v[b, h, seen] / weights.sum())
                sums.append(scores.max() + np.log(weights.sum()))
            shares = np.exp(np.array(sums) - max(sums))
            out[b, h, i] = shares @ np.array(mixed) / shares.sum()
    return out


def with_gradients(function, *parts):
    parts = [part.detach().clone().requires_grad_() for part in parts]
    out = function(*parts)
    out.sin().sum().backward()
    return [out.detach(), *(part.grad for part in parts)]


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(1, 9))


@settings(deadline=None, derandomize=True, database=None, max_examples=30)
@given(SIZES, st.integers(0, 8), st.integers(1, 3))
def test_one_bucket_in_one_chunk_is_dense_attention_with_its_gradients(shape, more, rounds):
    qk, v = drawn(shape)
    one = torch.zeros(shape[1], shape[3], rounds, 1)
    expected = with_gradients(dense, qk.double(), v.double())
    for dtype, close in [(torch.float64, 1e-11), (torch.float32, 1e-5)]:
        found = with_gradients(lambda q, u: lsh_attend(q, u, one, shape[2] + more), qk.to(dtype), v.to(dtype))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours.double(), theirs, atol=close, rtol=close)


@pytest.mark.parametrize(("buckets", "rounds", "chunk", "length"), KINDS)
def test_a_position_sees_its_own_chunk_of_its_bucket_and_the_one_before(buckets, rounds, chunk, length):
    qk, v = drawn((2, 3, length, 6))
    turned = rotations(6, buckets, rounds, seed=1, heads=3)
    expected = reference(qk, v, turned, chunk)
    np.testing.assert_allclose(lsh_attend(qk, v, turned, chunk).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(lsh_attend(qk.double(), v.double(), turned, chunk).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("width", [5, 32])
@pytest.mark.parametrize(("buckets", "rounds", "chunk", "length"), [*KINDS, (8, 2, 16, 200)])
def test_what_comes_later_does_not_change_one_bit(buckets, rounds, chunk, length, width):
    turned = rotations(width, buckets, rounds, seed=2, heads=2)
    qk, v = drawn((2, 2, length, width))
    other_qk, other_v = drawn((2, 2, length, width), seed=1)
    out = lsh_attend(qk, v, turned, chunk)
    for last in range(0, length - 1, max(1, length // 20)):
        later = slice(last + 1, None)
        qk2, v2 = qk.clone(), v.clone()
        qk2[:, :, later], v2[:, :, later] = other_qk[:, :, later], other_v[:, :, later]
        changed = lsh_attend(qk2, v2, turned, chunk)
        assert torch.equal(changed[:, :, : last + 1], out[:, :, : last + 1])
        assert not torch.equal(changed, out)


@pytest.mark.parametrize(("buckets", "rounds", "chunk", "length"), KINDS)
def test_a_decoding_step_is_the_row_of_its_position(buckets, rounds, chunk, length):
    qk, v = (part.double() for part in drawn((2, 3, length, 6)))
    turned = rotations(6, buckets, rounds, seed=3, heads=3)
    k, hashed = keys_of(qk), buckets_of(qk, turned)
    whole = lsh_attend(qk, v, turned, chunk)
    for at in range(length):
        now, here = slice(at, at + 1), torch.tensor([at])
        so_far = lsh_step(qk[:, :, now], k[:, :, : at + 1], v[:, :, : at + 1], hashed[..., : at + 1], here, chunk)
        torch.testing.assert_close(so_far, lsh_attend(qk[:, :, : at + 1], v[:, :, : at + 1], turned, chunk)[:, :, -1:])
        torch.testing.assert_close(so_far, whole[:, :, now])
        beyond = lsh_step(qk[:, :, now], k, v, hashed, here, chunk)  # the cache reaches behind the position
        torch.testing.assert_close(beyond, so_far)


def theirs(rounds, chunk):
    """A causal layer of `transformers`' Reformer with random weights, whose chunks look back at all the others."""
    torch.manual_seed(0)
    config = ReformerConfig(
        hidden_size=15, num_attention_heads=3, attention_head_size=5, num_buckets=8, num_hashes=rounds, hash_seed=5,
        lsh_attn_chunk_length=chunk, lsh_num_chunks_before=rounds * 12 // chunk - 1, lsh_num_chunks_after=0,
        is_decoder=True, lsh_attention_probs_dropout_prob=0.0, attn_layers=["lsh"],
    )  # fmt: skip
    return LSHSelfAttention(config, layer_idx=0).eval()


@pytest.mark.parametrize(("rounds", "chunk"), [(1, 12), (2, 12), (1, 6), (3, 6)])
def test_buckets_keys_and_outputs_are_those_of_reformer(rounds, chunk):
    """Where all buckets are seen, since theirs does not hide the others of a chunk: there all is in one of ours."""
    layer = theirs(rounds, chunk)
    h = torch.randn(2, 12, 15)
    with torch.no_grad():
        qk, v = (part(h).unflatten(-1, (3, 5)).transpose(1, 2) for part in (layer.query_key, layer.value))
        hashed = layer._hash_vectors(qk, rounds, None).unflatten(-1, (rounds, 12))
        keys = layer._len_and_dim_norm(qk, math.sqrt(5))
        found = layer.double()(h.double()).hidden_states  # in float32, logsumexps near -1e5 are off by 0.008
    turned = rotations(5, 8, rounds, seed=5, heads=3)
    assert torch.equal(buckets_of(qk, turned), hashed - torch.arange(rounds)[:, None] * 8)
    torch.testing.assert_close(keys_of(qk), keys, atol=1e-6, rtol=1e-5)
    out = lsh_attend(qk, v, torch.zeros_like(turned), 12)
    torch.testing.assert_close(out.transpose(1, 2).flatten(2).double(), found, atol=1e-5, rtol=1e-5)


def test_gradients_are_exact():
    qk, v = (part.requires_grad_() for part in drawn((1, 2, 11, 3), dtype=torch.float64))
    turned = rotations(3, 4, 2, seed=0, heads=2)
    assert torch.autograd.gradcheck(lambda q, u: lsh_attend(q, u, turned, 2), (qk, v))


def test_compiled_where_all_heads_are_taken_at_once_it_gives_the_same():
    qk, v = drawn((2, 2, 30, 8))
    turned = rotations(8, 4, 2, seed=0, heads=2)
    plain = with_gradients(lambda q, u: lsh_attend(q, u, turned, 4), qk, v)
    compiled = torch.compile(lsh_attend, fullgraph=True, backend="aot_eager")
    found = with_gradients(lambda q, u: compiled(q, u, turned, 4), qk, v)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


def test_checkpointed_activations_give_the_same_gradients():
    qk, v = drawn((2, 2, 30, 8))
    turned = rotations(8, 4, 2, seed=0, heads=2)
    plain = with_gradients(lambda q, u: lsh_attend(q, u, turned, 4), qk, v)
    again = with_gradients(lambda q, u: checkpoint(lsh_attend, q, u, turned, 4, use_reentrant=False), qk, v)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_close(dtype):
    qk, v = drawn((2, 2, 40, 16), dtype=dtype)
    turned = rotations(16, 4, 2, seed=0, heads=2)
    found = with_gradients(lambda q, u: lsh_attend(q, u, turned, 4), qk, v)
    expected = with_gradients(lambda q, u: lsh_attend(q, u, turned, 4), qk.double(), v.double())
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), exact, atol=0.05, rtol=0.05)
    step = lsh_step(qk[:, :, -1:], keys_of(qk), v, buckets_of(qk, turned), torch.tensor([39]), 4)
    torch.testing.assert_close(step, found[0][:, :, -1:], atol=0.05, rtol=0.05)


def test_autocast_moves_no_vector_to_another_bucket():
    qk, _ = drawn((4, 2, 200, 16))
    turned = rotations(16, 16, 4, seed=0, heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(buckets_of(qk, turned), hashed := buckets_of(qk, turned))
    assert torch.equal(hashed, buckets_of(qk, turned))


def test_rotations_belong_to_their_seed_and_to_no_other_randomness():
    state = torch.get_rng_state()
    first = rotations(8, 6, 2, seed=1, heads=3)
    assert first.shape == (3, 8, 2, 3)
    assert first.dtype == torch.float32
    with torch.device("meta"):
        assert torch.equal(first, rotations(8, 6, 2, seed=1, heads=3))
    assert not torch.equal(first, rotations(8, 6, 2, seed=2, heads=3))
    assert torch.equal(state, torch.get_rng_state())
