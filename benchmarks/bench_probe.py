"""Logistic regression on 9 layers of 45,000 x 512 features with 10 classes: igpt's L-BFGS beside scikit-learn's.

    python benchmarks/bench_probe.py [--rounds 1] [--optimum] [--only lbfgs]

Then by SGD, on 9 layers of 4,000 x 256 with four rates and 100 epochs, beside the same training as one would write it:
a data loader, Lightning's loop, a parameter for each layer, autograd and torch's SGD. The accuracies of all problems on
1,000 validation images must be the same within 0.3 points.

igpt fits all layers at once, scikit-learn the first, the middle and the last, one after the other; what counts is the
time a layer. The features are made: correlated, of uneven scale, and with classes that overlap, as those of networks
are. Both stop by their own rule (scikit-learn at its default tolerance, 1,000 iterations at most). The objective that
each reached is computed in float64; igpt's may be above the other by no more than 1e-5 nats. With --optimum, igpt's
distance from the optimum is measured too, against a solution whose own distance is bounded by its gradient.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from harness import Work, arguments, igpt_side, measure, peer_side
from results import row, save_rows
from torch import Tensor

from igpt.data import ImageDataModule, TensorImages
from igpt.model import FeatureOptions
from igpt.modules import Autoregressive
from igpt.probing import FeatureStore, SGDRecipe, StoredFeatures, fit_probes, sgd_probe
from igpt.system import Compute

LAYERS, IMAGES, WIDTH, CLASSES, STRENGTH = 9, 45_000, 512, 10, 1e-3
EVERY = 4  # scikit-learn fits one layer after the other; three of the nine stand for its time a layer
AT_LEAST = 5.0
MOST_ABOVE = 1e-5  # nats, igpt's objective over the peer's
Fit = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # features and labels to weights (L, D, K) and biases (L, K)


def made_features(every: int) -> tuple[Tensor, Tensor]:
    """Standardised features `(L, N, D)` with a decaying spectrum, of every so manieth layer, and labels `(N,)`."""
    labels = torch.randint(CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(LAYERS))
    layers = []
    for layer in range(0, LAYERS, every):
        generator = torch.Generator().manual_seed(layer)
        spectrum = torch.arange(1, WIDTH + 1).float() ** -1.0
        centres = torch.randn(CLASSES, WIDTH, generator=generator) * (0.2 + 0.05 * layer)
        latent = torch.randn(IMAGES, WIDTH, generator=generator) + centres[labels]
        mixing = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
        layers.append((latent * spectrum) @ mixing + 0.01 * torch.randn(IMAGES, WIDTH, generator=generator))
    features = torch.stack(layers)
    return (features - features.mean(1, keepdim=True)) / features.std(1, keepdim=True), labels


def fit_igpt(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    probes = fit_probes(features, labels, [STRENGTH], CLASSES)
    return probes.weight[:, 0], probes.bias[:, 0]


def fit_sklearn(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore", ConvergenceWarning)
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


def optimum(features: Tensor, labels: Tensor) -> tuple[float, float]:
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


def probe_work(fit: Fit, every: int) -> Work:
    """Probes of every so manieth layer; both sides are compared on those that the peer fits."""
    features, labels = made_features(every)
    found: list[tuple[Tensor, Tensor]] = []

    def one_round() -> float:
        found[:] = [fit(features, labels)]
        return len(found[0][0])

    def check() -> dict[str, Any]:
        layers = zip(*(part[:: EVERY // every] for part in (features, *found[0])), strict=True)
        return {"objective": np.array([objective(*in_float64(x, labels, w, b)) for x, w, b in layers])}

    return Work(one_round, check, late=True)


def in_float64(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> tuple[np.ndarray, ...]:
    return x.double().numpy(), labels.numpy(), weight.double().numpy(), bias.double().numpy()


def above_optimum(reached: np.ndarray) -> str:
    """How far the objectives of those layers are from the least at most, in words."""
    features, labels = made_features(EVERY)
    least = [optimum(layer, labels) for layer in features]
    worst = max(value - low + below for value, (low, below) in zip(reached, least, strict=True))
    return f"; at most {worst:.1e} nats above the optimum"


SIZES = {"train": 4000, "val": 1000, "test": 1000}
NARROW, RATES, EPOCHS, BATCH = 256, (30.0, 10.0, 3.0, 1.0), 100, 128
SGD_AT_LEAST = 4.0  # of a peer that writes no state
SAME_ACCURACY = 0.003


class Stored(ImageDataModule):
    """As many images as there are features; their pixels are never looked at."""

    def load(self) -> dict[str, TensorImages]:
        return {name: TensorImages(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), torch.arange(n) % CLASSES)
                for name, n in SIZES.items()}  # fmt: skip


def stored_features() -> dict[str, StoredFeatures]:
    """Float16 features of all splits, as they lie on disk; the deeper the layer, the further apart the classes."""
    generator = torch.Generator().manual_seed(0)
    centres = (
        torch.randn(LAYERS, CLASSES, NARROW, generator=generator) * torch.linspace(0.1, 0.2, LAYERS)[:, None, None]
    )
    arrays = {}
    for name, count in SIZES.items():
        labels = torch.randint(CLASSES, (count,), generator=generator)
        features = torch.randn(LAYERS, count, NARROW, generator=generator) + centres[:, labels]
        arrays |= {f"{name}_features": features.half().numpy(), f"{name}_labels": labels.numpy()}
    store = FeatureStore(Path(), list(range(LAYERS)), NARROW, "float16", SIZES, arrays, [NARROW] * LAYERS)
    return {name: StoredFeatures(store, name, store.layers) for name in SIZES}


def sgd_igpt(stored: dict[str, StoredFeatures], epochs: int) -> np.ndarray:
    """Validation accuracies `(L, S)`."""
    config = {"n_layers": LAYERS - 1, "d_model": NARROW, "n_heads": 2, "n_positions": 1, "vocab_size": 2}
    recipe = SGDRecipe([[layer] for layer in range(LAYERS)], FeatureOptions(), CLASSES, RATES, epochs)
    with TemporaryDirectory() as folder:
        more = Path(folder), Compute("cpu", "32-true"), stored
        found = sgd_probe(Autoregressive(config), Stored(resolution=1, batch_size=BATCH), recipe, *more)
    return np.array([[result.tried[rate] for rate in RATES] for result in found])


def sgd_plain(stored: dict[str, StoredFeatures], epochs: int) -> np.ndarray:
    """The same by Lightning, autograd and `torch.optim.SGD`."""
    import lightning.pytorch as pl
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, TensorDataset

    parts = {name: stored[name].__getitems__(list(range(SIZES[name]))) for name in ("train", "val")}
    mean = parts["train"][0].float().mean(0)
    scale = 1 / parts["train"][0].float().std(0, correction=0) / NARROW**0.5
    steps = epochs * (SIZES["train"] // BATCH)

    class Probes(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            zeros = (torch.zeros(NARROW, len(RATES) * CLASSES) for _ in range(LAYERS))
            self.weights = torch.nn.ParameterList(zeros)
            self.biases = torch.nn.ParameterList(torch.zeros(len(RATES) * CLASSES) for _ in range(LAYERS))

        def logits(self, features: Tensor) -> list[Tensor]:
            inputs = ((features.float() - mean) * scale).unbind(1)
            both = zip(inputs, self.weights, self.biases, strict=True)
            return [(x @ weight + bias).unflatten(1, (len(RATES), CLASSES)) for x, weight, bias in both]

        def training_step(self, batch: Any, _: int) -> Tensor:
            losses = [F.cross_entropy(z.mT, batch[1][:, None].expand(-1, len(RATES)), reduction="none").mean(0)
                      for z in self.logits(batch[0])]  # fmt: skip
            return (torch.stack(losses) * torch.tensor(RATES)).sum()

        def on_validation_epoch_start(self) -> None:
            self.right: Any = 0

        def validation_step(self, batch: Any, _: int) -> None:
            right = [(z.argmax(-1) == batch[1][:, None]).sum(0) for z in self.logits(batch[0])]
            self.right = self.right + torch.stack(right)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    probes = Probes()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    train = DataLoader(TensorDataset(*parts["train"]), BATCH, shuffle=True, drop_last=True)
    val = DataLoader(TensorDataset(*parts["val"]), BATCH)
    pl.Trainer(accelerator="cpu", max_epochs=epochs, num_sanity_val_steps=0, **quiet).fit(probes, train, val)  # type: ignore[arg-type]
    return np.asarray(probes.right / SIZES["val"])


def sgd_work(fit: Callable[[dict[str, StoredFeatures], int], np.ndarray]) -> Work:
    """A whole training a round, in epochs."""
    stored, found = stored_features(), list[np.ndarray]()

    def one_round() -> float:
        found[:] = [fit(stored, EPOCHS)]
        return EPOCHS

    return Work(one_round, lambda: {"accuracy": found[0]}, late=True)


def measure_sgd(options: Any) -> None:
    """Both ways of SGD."""
    sides = [igpt_side("igpt", sgd_work, sgd_igpt), peer_side("Lightning, autograd", sgd_work, sgd_plain)]
    found = measure(sides, options.rounds, warmup=0)
    ours, peer = found["igpt"], found["Lightning, autograd"]
    apart = np.abs(ours.found["accuracy"] - peer.found["accuracy"])
    if not float(np.abs(ours.found["accuracy"].max(1) - peer.found["accuracy"].max(1)).max()) <= SAME_ACCURACY:
        raise SystemExit(f"accuracies differ by {apart.max():.3f}; not the same work")
    note = f"each layer's accuracy within {100 * SAME_ACCURACY:.1f} points, of the best rate on 1,000 validation images"
    work = "linear probes by SGD, 9 layers, 4 rates"
    save_rows(options.results, [row(work, "epochs", ours, peer, at_least=SGD_AT_LEAST, note=note)])


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--optimum", action="store_true", help="measure igpt's distance from the optimum; minutes")
    parser.add_argument("--only", choices=["lbfgs", "sgd"], help="one of the two comparisons")
    options = parser.parse_args()
    if options.only != "lbfgs":
        measure_sgd(options)
    if options.only == "sgd":
        return
    sides = [igpt_side("igpt", probe_work, fit_igpt, 1), peer_side("scikit-learn", probe_work, fit_sklearn, EVERY)]
    found = measure(sides, options.rounds, warmup=0)
    ours, peer = found["igpt"], found["scikit-learn"]
    above = float((ours.found["objective"] - peer.found["objective"]).max())
    if not above <= MOST_ABOVE:
        raise SystemExit(f"igpt's objective is {above:.1e} nats above the other; not the same work")
    note = f"igpt's objective is {'above' if above > 0 else 'below'} the other's by {abs(above):.0e} nats at worst"
    note += above_optimum(ours.found["objective"]) if options.optimum else ""
    save_rows(options.results, [row("linear probes of 9 layers", "probes", ours, peer, at_least=AT_LEAST, note=note)])


if __name__ == "__main__":
    main()
