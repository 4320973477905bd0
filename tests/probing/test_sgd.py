import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from igpt.model.features import FeatureOptions
from igpt.probing.methods.lbfgs import fit_probes
from igpt.probing.methods.sgd import (
    RATES,
    LinearProbes,
    Moments,
    SGDRecipe,
    best_rates,
    group_inputs,
    right_counts,
)
from igpt.probing.protocol import accuracy


def problem(layers=3, images=64, width=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(layers, images, width, generator=generator, dtype=dtype)
    return features, torch.randint(4, (images,), generator=generator)


def train(inputs, labels, rates, steps, batch=16, num_classes=4):
    """All problems at once over a repeating sequence of batches, the rates falling by a cosine."""
    probes = LinearProbes([part.shape[1] for part in inputs], rates, num_classes, inputs[0])
    for step in range(steps):
        some = torch.arange(step * batch, (step + 1) * batch) % len(labels)
        share = 0.5 * (1 + math.cos(math.pi * step / steps))
        probes.step(probes.stacked([part[some] for part in inputs]), labels[some], share)
    return probes


def weights(probes, group):
    """Weights (D, S, K) and biases (S, K) of a group."""
    values, _ = probes.state()
    return values[f"weights.{group}"], values[f"biases.{group}"]


def train_alone(x, labels, rate, steps, batch=16, num_classes=4):
    """One layer and one rate as anybody would train it."""
    linear = nn.Linear(x.shape[1], num_classes, dtype=x.dtype)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        some = torch.arange(step * batch, (step + 1) * batch) % len(labels)
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(x[some]), labels[some]).backward()
        optimizer.step()
    return linear


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_training_all_at_once_is_training_each_layer_and_rate_alone(dtype, close):
    features, labels = problem(dtype=dtype)
    members, rates = [[0], [2], [1, 2]], (3.0, 0.5, 0.1)
    probes = train(group_inputs(features, members), labels, rates, 25)
    for group, layers in enumerate(members):
        x = torch.cat([features[layer] for layer in layers], dim=1)
        weight, bias = weights(probes, group)
        for index, rate in enumerate(rates):
            alone = train_alone(x, labels, rate, 25)
            torch.testing.assert_close(weight[:, index].T, alone.weight, atol=close, rtol=close)
            torch.testing.assert_close(bias[index], alone.bias, atol=close, rtol=close)


def test_a_problem_that_diverges_leaves_the_others_as_they_were():
    features, labels = problem(dtype=torch.float32)
    inputs = group_inputs(features * 20, [[0], [1]])
    inputs[1] = inputs[1] * 1e37
    probes = train(inputs, labels, (3e38, 1e-3), 10)
    alone = train(inputs[:1], labels, (1e-3,), 10)
    assert not weights(probes, 0)[0][:, 0].isfinite().any()
    assert not weights(probes, 1)[0].isfinite().any()
    torch.testing.assert_close(weights(probes, 0)[0][:, 1:], weights(alone, 0)[0])
    right = probes.right(probes.stacked(inputs), labels)
    assert right[0, 0] == 0
    assert right[0, 1] > 16


def test_an_image_is_right_where_its_label_has_the_first_of_the_highest_logits_and_all_are_finite():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [0.0, 0.0, 0.0], [1.0, torch.nan, 0.0],
                           [1.0, 0.0, -torch.inf], [torch.inf, 0.0, 0.0]])  # fmt: skip
    assert right_counts(logits[:3].T, torch.tensor([1, 0, 0])) == 3
    assert right_counts(logits[:3].T, torch.tensor([2, 1, 2])) == 0
    assert right_counts(logits[3:].T, torch.tensor([0, 0, 0])) == 0


def test_what_was_trained_goes_on_from_its_state_to_the_same_bits():
    features, labels = problem(dtype=torch.float32)
    whole, first, second = (LinearProbes([5, 10, 5], (1.0, 0.1), 4, features) for _ in range(3))
    parts = [slice(0, 16), slice(16, 32)]
    batches = [(whole.stacked(group_inputs(features[:, one], [[0], [1, 2], [2]])), labels[one]) for one in parts]
    for probes, taken in ((whole, batches), (first, batches[:1])):
        for batch in taken:
            probes.step(*batch, 0.5)
    second.load(*first.state())
    second.step(*batches[1], 0.5)
    for group in range(3):
        assert all(torch.equal(a, b) for a, b in zip(weights(whole, group), weights(second, group), strict=True))


def test_mean_and_deviation_are_numpys_however_the_images_are_batched():
    features, _ = problem(images=100)
    features = features * torch.logspace(-3, 3, 5) + 1000
    moments = Moments()
    for part in features.float().split([1, 40, 59], dim=1):
        moments.add(part)
    whole = features.float().double().numpy()
    np.testing.assert_allclose(moments.mean, whole.mean(1), rtol=1e-12)
    np.testing.assert_allclose(moments.scale()[:, 1:], 1 / whole.std(1)[:, 1:], rtol=1e-9)


def test_standardised_inputs_have_mean_squared_length_one_and_constants_vanish():
    features, _ = problem(layers=4, images=200, width=7)
    features = features * 100 + 30
    features[1, :, 2] = 0.1
    moments = Moments()
    moments.add(features)
    inputs = group_inputs(features, [[0], [2, 3], [1]], moments.mean, moments.scale())
    assert [part.shape[1] for part in inputs] == [7, 14, 7]
    lengths = [float(part.square().sum(1).mean()) for part in inputs]
    assert lengths == pytest.approx([1, 1, 6 / 7])
    assert inputs[2][:, 2].abs().max() < 1e-9
    torch.testing.assert_close(inputs[1].mean(0), torch.zeros(14, dtype=torch.float64), atol=1e-12, rtol=0)


def test_inputs_that_are_not_standardised_are_the_features_one_after_another():
    features, _ = problem()
    first, both = group_inputs(features, [[1], [2, 0]])
    assert torch.equal(first, features[1])
    assert torch.equal(both, torch.cat([features[2], features[0]], dim=1))


def test_the_best_rate_is_the_most_accurate_and_the_smaller_of_equals():
    assert best_rates(torch.tensor([[0.5, 0.7, 0.6], [0.7, 0.1, 0.7], [0.2, 0.2, 0.2]]), (30, 10, 3)) == [1, 2, 2]
    assert best_rates(torch.tensor([[0.7, 0.1, 0.7]]), (1, 10, 30)) == [0]


@pytest.mark.parametrize("width", [64, 640])
def test_on_the_digits_sgd_comes_within_two_points_of_lbfgs_whatever_the_width(width):
    images, labels = load_digits(return_X_y=True)
    features, labels = torch.from_numpy(images).float().repeat(1, width // 64)[None], torch.from_numpy(labels)
    fitted = slice(0, 1300)
    moments = Moments()
    moments.add(features[:, fitted])
    (inputs,) = group_inputs(features, [[0]], moments.mean.float(), moments.scale().float())
    probes = train([inputs[fitted]], labels[fitted], RATES, 20 * 30, batch=65, num_classes=10)
    ours = probes.right(probes.stacked([inputs[1300:]]), labels[1300:])[0] / len(labels[1300:])
    lbfgs = fit_probes(8 * inputs[None, fitted], labels[fitted], [1e-3], 10)
    theirs = float(accuracy(lbfgs.logits(8 * inputs[None, 1300:]), labels[1300:]))
    assert float(ours.max()) == pytest.approx(theirs, abs=0.02)


def test_the_layers_of_a_recipe_are_those_of_all_groups_and_members_point_to_them():
    recipe = SGDRecipe([[4], [2, 3], [2]], FeatureOptions(), 3, (1.0,), 1, True, 9)
    assert recipe.layers == [2, 3, 4]
    assert recipe.members == [[2], [0, 1], [0]]
