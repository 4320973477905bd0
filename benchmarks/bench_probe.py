"""Logistic regression on 9 layers of 45,000 x 512 features with 10 classes: igpt's L-BFGS beside scikit-learn's.

    python benchmarks/bench_probe.py [--repeats 3]

The features are made: correlated, of uneven scale, and with classes that overlap, as those of networks are. Both stop
by their own rule (scikit-learn at its default tolerance, 1,000 iterations at most); how far each is from the optimum is
measured in float64, against a solution whose own distance is bounded by its gradient. Both in turn in one process; the
last line is the ratio of medians.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from igpt.probing.lbfgs import fit_probes

LAYERS, IMAGES, WIDTH, CLASSES, STRENGTH = 9, 45_000, 512, 10, 1e-3


def made_features(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised features `(L, N, D)` with a decaying spectrum, and labels `(N,)`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    layers = []
    for layer in range(LAYERS):
        spectrum = torch.arange(1, WIDTH + 1).float() ** -1.0
        centres = torch.randn(CLASSES, WIDTH, generator=generator) * (0.2 + 0.05 * layer)
        latent = torch.randn(IMAGES, WIDTH, generator=generator) + centres[labels]
        mixing = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
        layers.append((latent * spectrum) @ mixing + 0.01 * torch.randn(IMAGES, WIDTH, generator=generator))
    features = torch.stack(layers)
    return (features - features.mean(1, keepdim=True)) / features.std(1, keepdim=True), labels


def ours(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    probes = fit_probes(features, labels, [STRENGTH], CLASSES)
    return probes.weight[:, 0], probes.bias[:, 0]


def theirs(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights, biases = [], []
    for layer in features:
        model = LogisticRegression(C=1 / (STRENGTH * IMAGES), max_iter=1000).fit(layer.numpy(), labels.numpy())
        weights.append(torch.from_numpy(model.coef_.T))
        biases.append(torch.from_numpy(model.intercept_))
    return torch.stack(weights), torch.stack(biases)


def objective(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """In NumPy and float64."""
    scores = x @ weight + bias
    top = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
    return float((log_sum - scores[np.arange(len(labels)), labels]).mean() + STRENGTH / 2 * (weight**2).sum())


def optimum(features: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """An objective reached in float64, and how far below it the least can be at most.

    The objective is strongly convex in the weights, so the distance is at most |gradient|^2 / (2 strength). The
    gradient is NumPy's; that of the bias, which is not penalised, is counted like the others.
    """
    probes = fit_probes(features.double()[None], labels, [STRENGTH], CLASSES, tolerance=1e-8)
    x, y = features.double().numpy(), labels.numpy()
    weight, bias = probes.weight[0, 0].numpy(), probes.bias[0, 0].numpy()
    scores = x @ weight + bias
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    residual = (shares - np.eye(CLASSES)[y]) / len(y)
    squared = ((x.T @ residual + STRENGTH * weight) ** 2).sum() + (residual.sum(0) ** 2).sum()
    return objective(x, y, weight, bias), float(squared / (2 * STRENGTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip_optimum", action="store_true", help="time only")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    features, labels = made_features()
    runs = {"igpt": ours, "scikit-learn": theirs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    found = {}
    for repeat in range(options.repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            found[name] = run(features, labels)
            times[name].append(time.perf_counter() - started)
            print(f"repeat {repeat}  {name:13} {times[name][-1]:7.2f} s", flush=True)
    if not options.skip_optimum:
        worst, slack = dict.fromkeys(runs, 0.0), 0.0
        for layer in range(LAYERS):
            least, below = optimum(features[layer], labels)
            slack = max(slack, below)
            for name, (weight, bias) in found.items():
                x, y = features[layer].double().numpy(), labels.numpy()
                reached = objective(x, y, weight[layer].double().numpy(), bias[layer].double().numpy())
                worst[name] = max(worst[name], reached - least)
        for name, value in worst.items():
            print(f"{name:13} at most {value:.1e} above the optimum (known to {slack:.0e})")
    for name, values in times.items():
        print(f"{name:13} median {np.median(values):.2f} s ({min(values):.2f} to {max(values):.2f} s)")
    print(f"ratio {np.median(times['scikit-learn']) / np.median(times['igpt']):.1f} x")


if __name__ == "__main__":
    main()
