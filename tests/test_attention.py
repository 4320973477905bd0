import math

import numpy as np
import pytest
import torch

from igpt.model.attention import LONG, attend, attend_in_blocks


def heads(shape, dtype=torch.float32):
    return [torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(3)]


def reference(q, k, v, causal):
    """One query after the other, in NumPy and float64."""
    q, k, v = (part.double().numpy() for part in (q, k, v))
    out = np.zeros_like(q)
    for index in np.ndindex(q.shape[:3]):
        seen = index[2] + 1 if causal else k.shape[2]
        scores = k[index[:2]][:seen] @ q[index] / math.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max())
        out[index] = shares @ v[index[:2]][:seen] / shares.sum()
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("tokens", "rows"), [(1, 4), (4, 4), (10, 4), (11, 3), (10, 64)])
def test_blocks_of_any_size_give_the_textbook_attention(tokens, rows, causal):
    q, k, v = heads((2, 3, tokens, 5))
    found = attend_in_blocks(q, k, v, causal, rows)
    np.testing.assert_allclose(found.numpy(), reference(q, k, v, causal), atol=1e-6)


def test_one_query_may_attend_to_many_keys():
    q, k, v = heads((2, 3, 9, 5))
    found = attend_in_blocks(q[:, :, -1:], k, v, causal=False)
    np.testing.assert_allclose(found.numpy(), reference(q, k, v, causal=True)[:, :, -1:], atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("tokens", "rows"), [(4, 4), (5, 2), (6, 4)])
def test_blocks_have_exact_gradients(tokens, rows, causal):
    parts = [part.double().requires_grad_() for part in heads((1, 2, tokens, 3))]
    assert torch.autograd.gradcheck(lambda q, k, v: attend_in_blocks(q, k, v, causal, rows), parts)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [10, 300, LONG + 1])
def test_every_kernel_gives_the_same_attention_and_gradients(tokens, dtype, causal):
    exact = [part.double().requires_grad_() for part in heads((1, 2, tokens, 8), dtype)]
    parts = [part.detach().to(dtype).requires_grad_() for part in exact]
    expected, found = attend(*exact, causal), attend(*parts, causal)
    assert found.dtype == dtype
    expected.sin().sum().backward()
    found.sin().sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.04, "rtol": 0.04}
    torch.testing.assert_close(found.double(), expected, **close)
    for one, other in zip(parts, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, **close)


@pytest.mark.parametrize(
    ("dtype", "keys", "blocks"),
    [
        (torch.bfloat16, LONG, True),
        (torch.float16, 9, True),
        (torch.bfloat16, LONG + 1, False),
        (torch.float32, 9, False),
    ],
)
def test_on_a_cpu_blocks_attend_in_half_precision_to_as_many_keys_as_memory_should_hold(dtype, keys, blocks):
    q, k, v = (part.to(dtype).requires_grad_() for part in (torch.ones(1, 1, count, 4) for count in (1, keys, keys)))
    steps, seen = [attend(q, k, v, causal=False).grad_fn], set()
    while steps:
        step = steps.pop()
        seen.add(step.name())
        steps += [before for before, _ in step.next_functions if before is not None]
    assert ("TileAttentionBackward" in seen) == blocks
