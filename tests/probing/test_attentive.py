"""The attentive probe, against NumPy, torch's Adam and the linear probe that it begins as."""

import math

import numpy as np
import pytest
import torch

from igpt.model.features import FeatureOptions
from igpt.probing.methods.attentive import AttentiveProbes, AttentiveRecipe, TokenMoments, head_logits, queries_of


def softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def logits_by_numpy(tokens, query, value, weight, bias):
    """One image at a time, as the paper writes it: project every token, then let each query read its part of them."""
    queries, width = query.shape
    part = width // queries
    found = []
    for image in tokens:
        projected = image @ value  # (T, D)
        attention = softmax(query @ image.T / math.sqrt(width))  # (M, T)
        read = [attention[m] @ projected[:, m * part : (m + 1) * part] for m in range(queries)]
        found.append(np.concatenate(read) @ weight + bias)
    return np.stack(found)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_head_is_the_papers_formula_on_standardised_tokens():
    tokens, mean, scale = 3 * drawn(5, 7, 12) + 2, drawn(12, seed=1), drawn(12, seed=2).abs()
    query, value = drawn(2, 4, 12, seed=3), drawn(2, 12, 12, seed=4)
    weight, bias = drawn(2, 12, 6, seed=5), drawn(2, 6, seed=6)
    shared = value.unflatten(2, (4, 3)).transpose(1, 2)  # the columns of each query
    found = head_logits(tokens, mean, scale, query, shared, weight, bias)
    standard = (tokens.double().numpy() - mean.double().numpy()) * scale.double().numpy()
    for rate in range(2):
        own = (part[rate].double().numpy() for part in (query, value, weight, bias))
        expected = logits_by_numpy(standard, *own)
        np.testing.assert_allclose(found[rate].numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def problem(width=8, tokens=6, layers=2, images=40):
    """Tokens (L, N, T, D) of which one, somewhere, tells the class: its sign in one feature, where another is large."""
    features, labels = drawn(layers, images, tokens, width), torch.arange(images) % 2
    place = torch.randint(tokens, (images,), generator=torch.Generator().manual_seed(9))
    features[:, torch.arange(images), place, 0] = 6.0
    features[:, torch.arange(images), place, 1] = 4.0 * labels - 2
    return features, labels


def recipe(layers=(0, 1), rates=(0.03, 0.01), **options):
    return AttentiveRecipe(list(layers), FeatureOptions(), 2, rates=rates, **options)


def trained(features, labels, steps, **options):
    probes = AttentiveProbes(recipe(range(len(features)), **options), features.shape[-1], features)
    probes.standardise([features])
    for step in range(steps):
        probes.step(features, labels, 0.5 * (1 + math.cos(math.pi * step / steps)))
    return probes


def test_it_begins_as_the_linear_probe_of_mean_tokens_standardised():
    features = 5 * problem()[0] + 3
    probes = AttentiveProbes(recipe(), 8, features)
    probes.standardise([features[:, :10], features[:, 10:]])
    weight = drawn(2, 2, 8, 2)
    probes.values["weight"].copy_(weight)
    means = features.mean(2).double().numpy()
    standard = (means - means.mean(1, keepdims=True)) / means.std(1, keepdims=True)
    for layer in range(2):
        own = (value[layer] for value in probes.values.values())
        found = head_logits(features[layer], probes.mean[layer], probes.scale[layer], *own)
        np.testing.assert_allclose(found, standard[layer] @ weight[layer].double().numpy(), atol=1e-4)


def test_queries_see_tokens_of_mean_zero_and_deviation_one_and_constants_vanish():
    features = problem()[0] * torch.linspace(0.1, 9, 8) + 100
    features[1, ..., 3] = 7.0
    moments = TokenMoments()
    for part in features.split([1, 30, 9], dim=1):
        moments.add(part)
    mean, scale, _ = moments.scales()
    tokens = features.double().flatten(1, 2).numpy()
    np.testing.assert_allclose(mean, tokens.mean(1), rtol=1e-6)
    kept = np.ones((2, 8), bool)
    kept[1, 3] = False
    np.testing.assert_allclose(scale.numpy()[kept], 1 / tokens.std(1)[kept], rtol=1e-4)
    assert scale[1, 3] == 0


def test_training_all_at_once_is_training_each_layer_and_rate_alone_by_torchs_adam():
    features, labels = (problem()[0].double(), problem()[1])
    probes = trained(features, labels, 12)
    for layer in range(2):
        for index, rate in enumerate((0.03, 0.01)):
            fresh = AttentiveProbes(recipe(), 8, features)
            fresh.standardise([features])
            own = [torch.nn.Parameter(value[layer, index : index + 1]) for value in fresh.values.values()]
            adam = torch.optim.Adam(own, lr=rate)
            for step in range(12):
                adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / 12))
                logits = head_logits(features[layer], fresh.mean[layer], fresh.scale[layer], *own)[0]
                adam.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                adam.step()
            for value, parameter in zip(probes.values.values(), own, strict=True):
                torch.testing.assert_close(value[layer, index], parameter[0].detach(), atol=1e-8, rtol=1e-8)


def test_it_finds_the_one_token_that_a_mean_blurs():
    features, labels = problem(tokens=30, images=200)
    probes = trained(features[:, :100], labels[:100], 150)
    right = probes.right(features[:, 100:], labels[100:])
    assert (right[:, 0] > 95).all()
    means = features.mean(2, keepdim=True)
    linear = trained(means[:, :100], labels[:100], 150)  # of one token, attention has nothing to choose from
    assert (linear.right(means[:, 100:], labels[100:]) < 85).all()


def test_a_rate_that_diverges_leaves_the_others_as_they_were():
    features, labels = problem()
    both, alone = trained(features, labels, 8, rates=(1e30, 0.01)), trained(features, labels, 8, rates=(0.01,))
    assert (both.right(features, labels)[:, 0] == 0).all()
    for name, value in alone.values.items():
        torch.testing.assert_close(both.values[name][:, 1], value[:, 0])


def test_the_number_of_queries_is_the_largest_that_divides_the_width():
    assert [queries_of(width, 8) for width in (512, 96, 12, 7, 11)] == [8, 8, 6, 7, 1]


def test_what_was_trained_goes_on_from_its_state_to_the_same_bits():
    features, labels = problem()
    whole, first, second = (AttentiveProbes(recipe(), 8, features) for _ in range(3))
    for probes in (whole, first):
        probes.standardise([features])
        probes.step(features, labels, 1.0)
    second.load(first.state())
    for probes in (whole, second):
        probes.step(features, labels, 0.5)
    assert all(torch.equal(value, second.values[name]) for name, value in whole.values.items())


@pytest.mark.parametrize("standardise", [True, False])
def test_without_standardising_values_begin_as_the_tokens(standardise):
    features, _ = problem()
    probes = AttentiveProbes(recipe(), 8, features)
    if standardise:
        probes.standardise([features])
    value = probes.values["value"][0, 0].transpose(0, 1).flatten(1)  # (D, D)
    assert torch.equal(value, torch.diag(value.diag()))
    assert torch.equal(value.diag(), torch.ones(8)) != standardise
