import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from igpt.probing.methods import lbfgs, preconditioner
from igpt.probing.methods.lbfgs import HISTORY, _Memory, fit_probes, lbfgs_layers
from igpt.probing.protocol import LayerResult, accuracy, best_layer, standardise


def problem(layers=2, images=400, dimensions=12, classes=4, seed=0):
    """Correlated features of uneven scale with labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(layers, images, dimensions, generator=generator, dtype=torch.float64)
    mixing = torch.randn(layers, dimensions, dimensions, generator=generator, dtype=torch.float64)
    features = features @ mixing * torch.logspace(-2, 1, dimensions, dtype=torch.float64) + 3
    labels = (features[0] @ torch.randn(dimensions, classes, generator=generator, dtype=torch.float64)).argmax(1)
    noise = torch.rand(images, generator=generator) < 0.2
    labels[noise] = torch.randint(classes, (int(noise.sum()),), generator=generator)
    return features, labels


def objective(features, labels, weight, bias, strength):
    """The probe's objective for one layer, in NumPy and float64."""
    scores = features.double().numpy() @ weight.double().numpy() + bias.double().numpy()
    top = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
    return (log_sum - scores[np.arange(len(labels)), labels]).mean() + strength / 2 * (
        weight.double().numpy() ** 2
    ).sum()


def sklearn_optimum(features, labels, strength):
    model = LogisticRegression(C=1 / (strength * len(labels)), solver="newton-cholesky", tol=1e-10)
    model.fit(features.double().numpy(), labels.numpy())
    weight, bias = torch.from_numpy(model.coef_.T), torch.from_numpy(model.intercept_)
    return objective(features, labels, weight, bias, strength)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_layer_and_strength_reaches_scikit_learns_optimum(dtype):
    features, labels = problem()
    strengths = [1e-1, 1e-2, 1e-4]
    probes = fit_probes(features.to(dtype), labels, strengths, 4)
    for layer in range(2):
        for index, strength in enumerate(strengths):
            ours = objective(features[layer], labels, probes.weight[layer, index], probes.bias[layer, index], strength)
            assert ours <= sklearn_optimum(features[layer], labels, strength) + 1e-4
            assert float(probes.objective[layer, index]) == pytest.approx(ours, abs=1e-5)


def test_the_gradient_vanishes_at_the_solution():
    features, labels = problem(layers=1)
    probes = fit_probes(features, labels, [1e-3], 4, tolerance=1e-9)
    weight = probes.weight[0, 0].clone().requires_grad_()
    bias = probes.bias[0, 0].clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(features[0] @ weight + bias, labels) + 1e-3 / 2 * weight.square().sum()
    loss.backward()
    assert weight.grad.abs().max() < 1e-6
    assert bias.grad.abs().max() < 1e-6


def test_twenty_steps_come_within_a_millionth_of_the_optimum_since_steps_are_remembered():
    features, labels = problem()
    assert fit_probes(features, labels, [1e-1, 1e-3, 1e-6], 4, tolerance=1e-6).steps < 25  # 39 remembering one
    assert fit_probes(features, labels, [1e-3], 4, tolerance=1e9).steps == 1


def test_what_is_remembered_is_the_dense_bfgs_matrix_of_the_last_pairs_with_positive_curvature():
    """The second problem refuses every third step; the fourth step of all is zero, and the sixth rises."""
    rng, size, pairs = np.random.default_rng(0), 5, 14
    hessian = np.diag(np.arange(1.0, size + 1)) + 0.5
    steps = rng.normal(size=(pairs, 2, size))
    steps[3] = 0
    changes = steps @ hessian
    changes[5] *= -1
    memory, kept = _Memory(2, size, torch.empty(0, dtype=torch.float64)), ([], [])
    for number, (step, change) in enumerate(zip(steps, changes, strict=True)):
        accept = [True, number % 3 != 0]
        memory.add(torch.tensor(accept), torch.from_numpy(step), torch.from_numpy(change))
        for problem in (0, 1):
            if accept[problem] and number not in (3, 5):
                kept[problem].append((step[problem], change[problem]))
    gradient = rng.normal(size=(2, size))
    found = memory.apply(torch.from_numpy(gradient), lambda q: 3 * q).numpy()
    for problem in (0, 1):
        inverse = 3 * np.eye(size)
        for step, change in kept[problem][-HISTORY:]:
            shift = np.eye(size) - np.outer(step, change) / (step @ change)
            inverse = shift @ inverse @ shift.T + np.outer(step, step) / (step @ change)
        np.testing.assert_allclose(found[problem], inverse @ gradient[problem], rtol=1e-9)


def test_in_other_units_of_the_features_the_same_steps_reach_the_same_objective():
    features, labels = problem()
    probes = fit_probes(features, labels, [1e-1, 1e-4], 4)
    unit = 2.0**-12
    smaller = fit_probes(features * unit, labels, [1e-1 * unit**2, 1e-4 * unit**2], 4)
    assert smaller.steps == probes.steps
    torch.testing.assert_close(smaller.objective, probes.objective)
    torch.testing.assert_close(smaller.weight * unit, probes.weight, rtol=1e-3, atol=1e-6)


def test_layers_do_not_influence_one_another():
    features, labels = problem()
    together = fit_probes(features, labels, [1e-2], 4)
    alone = fit_probes(features[1:], labels, [1e-2], 4)
    torch.testing.assert_close(together.weight[1:], alone.weight, atol=1e-4, rtol=1e-3)


def test_features_that_are_constant_or_repeated_do_no_harm():
    features, labels = problem(layers=1)
    features = torch.cat([features, features[..., :3], torch.zeros(1, features.shape[1], 2).double()], dim=2)
    probes = fit_probes(features.float(), labels, [1e-3], 4)
    assert torch.isfinite(probes.weight).all()
    assert float(probes.objective) <= sklearn_optimum(features[0], labels, 1e-3) + 1e-4


def test_on_the_digits_the_probe_equals_scikit_learns_within_half_a_point():
    images, labels = load_digits(return_X_y=True)
    features, labels = torch.from_numpy(images / 16).float()[None], torch.from_numpy(labels)
    train, test = slice(0, 1300), slice(1300, None)
    probes = fit_probes(features[:, train], labels[train], [1e-3], 10)
    ours = float(accuracy(probes.logits(features[:, test]), labels[test]))
    theirs = LogisticRegression(C=1 / (1e-3 * 1300), max_iter=10_000).fit(
        features[0, train].numpy(), labels[train].numpy()
    )
    assert ours == pytest.approx(theirs.score(features[0, test].numpy(), labels[test].numpy()), abs=0.005)


def test_standardised_features_have_mean_zero_and_deviation_one_and_constants_vanish():
    features, _ = problem(layers=1)
    features[..., 0] = 5.0
    (scaled,) = standardise(features, [features])
    assert scaled[..., 0].abs().max() == 0
    torch.testing.assert_close(scaled.mean(1), torch.zeros_like(scaled.mean(1)), atol=1e-9, rtol=0)
    torch.testing.assert_close(scaled[..., 1:].std(1, correction=0), torch.ones(1, 11, dtype=torch.float64))


def test_the_test_split_plays_no_part_in_choosing():
    features, labels = problem(images=600)
    splits = {
        "train": (features[:, :300].float(), labels[:300]),
        "val": (features[:, 300:400].float(), labels[300:400]),
        "test": (features[:, 400:].float(), labels[400:]),
    }
    results = lbfgs_layers(splits, [(0,), (1,)], 4)
    shuffled = {**splits, "test": (splits["test"][0], splits["test"][1].flip(0))}
    for one, other in zip(results, lbfgs_layers(shuffled, [(0,), (1,)], 4), strict=True):
        assert (one.chosen, one.val_accuracy) == (other.chosen, other.val_accuracy)
        assert one.test_accuracy != other.test_accuracy


def test_the_best_layer_is_chosen_by_validation_and_ties_go_down():
    results = [
        LayerResult((i,), 0.1, val, test, 1.0) for i, (val, test) in enumerate([(0.5, 0.9), (0.7, 0.1), (0.7, 0.8)])
    ]
    assert best_layer(results).layer == 1


@pytest.mark.parametrize("case", ["constant", "equal", "fewer images than features", "one image a class", "large"])
@pytest.mark.parametrize("strength", [1e-1, 1e-6])
def test_degenerate_features_are_fitted_as_well_as_others(case, strength):
    features, labels = problem(layers=1, images=30 if case == "fewer images than features" else 300, dimensions=40)
    features = standardise(features, [features])[0]
    if case == "constant":
        features[..., :5] = 0.0
    elif case == "equal":
        features[..., 20:] = features[..., :20]
    elif case == "one image a class":
        chosen = [int((labels == c).nonzero()[0]) for c in range(4)]
        features, labels = features[:, chosen], labels[chosen]
    elif case == "large":
        features = features * 1000 + 5000
    probes = fit_probes(features.float(), labels, [strength], 4)
    ours = objective(features[0], labels, probes.weight[0, 0], probes.bias[0, 0], strength)
    assert ours <= sklearn_optimum(features[0], labels, strength) + (1e-3 if case == "large" else 1e-4)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("per_class", [1, 4])
@pytest.mark.parametrize("dimensions", [35, 96, 512])
def test_with_few_images_a_weaker_penalty_reaches_a_lower_objective(classes, per_class, dimensions):
    strengths = [10.0**-e for e in range(1, 7)]
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(1, classes * per_class, dimensions, generator=generator)
        features = standardise(features, [features])[0]
        reached = fit_probes(features, torch.arange(classes).repeat(per_class), strengths, classes).objective[0]
        assert (reached.diff() < 1e-5).all(), (seed, reached)
        assert float(reached[-1]) < 0.01  # any labels can be told apart with more features than images


@pytest.mark.parametrize("most", [1000, 100])
def test_of_very_many_features_the_principal_directions_lead_to_the_same_optimum(monkeypatch, most):
    """Of all 400 images, and of 100 whose curvature another 100 tell."""
    features, labels = problem(layers=2, dimensions=60)
    features = standardise(features, [features])[0] + 2
    strengths = [1e-1, 1e-3]
    dense = fit_probes(features, labels, strengths, 4, tolerance=1e-7)
    monkeypatch.setattr(lbfgs, "DENSE", 59)
    monkeypatch.setattr(preconditioner, "MOST", most)
    assert isinstance(lbfgs._Problem(features, labels, strengths, 4).inverse, preconditioner.LowRank)
    wide = fit_probes(features, labels, strengths, 4, tolerance=1e-7)
    torch.testing.assert_close(wide.objective, dense.objective, rtol=0, atol=1e-12)
    torch.testing.assert_close(wide.weight, dense.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(wide.bias, dense.bias, rtol=0, atol=1e-5)
    single = fit_probes(features.float(), labels, strengths, 4)
    torch.testing.assert_close(single.objective.double(), dense.objective, rtol=0, atol=1e-5)


@pytest.mark.parametrize("images", [30, 200])
def test_the_low_rank_inverse_of_all_images_is_the_hessians(images):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, images, 50, generator=generator, dtype=torch.float64) + 3
    gradient = torch.randn(1, 2, 4, 51, generator=generator, dtype=torch.float64)
    strengths = torch.tensor([1e-1, 1e-3], dtype=torch.float64)
    found = preconditioner.LowRank(features, strengths, 4).apply(gradient)
    padded = np.pad(features[0].numpy(), ((0, 0), (0, 1)), constant_values=1.0)
    for index, strength in enumerate(strengths.tolist()):
        hessian = padded.T @ padded / (images * 4) + np.diag([strength] * 50 + [0.0])
        expected = np.linalg.solve(hessian, gradient[0, index].numpy().T).T
        np.testing.assert_allclose(found[0, index].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_features_that_never_vary_have_a_low_rank_inverse_too():
    inverse = preconditioner.LowRank(torch.ones(1, 20, 8), torch.tensor([0.1]), 3)
    gradient = torch.tensor([1.0, *[0.0] * 7, 0.0]).expand(1, 1, 3, 9)
    assert inverse.apply(gradient)[0, 0, 0].tolist() == pytest.approx([10, *[0] * 7, -10])
