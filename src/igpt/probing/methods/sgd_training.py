"""Linear probes of many layers and learning rates, trained at once on a frozen network's features (section 2.4)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igpt.data import SPLITS, ImageDataModule, LabelledImages
from igpt.probing.methods.batches import FrozenFeatures, accuracy_of, fits, frozen
from igpt.probing.methods.sgd import EPOCHS, LinearProbes, Moments, SGDRecipe, best_rates, group_inputs
from igpt.probing.methods.unfinished import Unfinished, forget, header_of, state_folder
from igpt.probing.protocol import Group, LayerResult, Probed, ProbeMethod, ProbeTask
from igpt.probing.store import FeatureStore
from igpt.system import Compute, Progress
from igpt.training import warmup_cosine

FILE = "sgd.ckpt"
CLASS_PATH = "igpt.modules.layer_probe.LayerProbe"  # in the header of that file: the name of its format
KEPT_BYTES = 2**31  # of float32 features of all splits, up to which they are kept in memory
ROWS = 1024  # images of a split that are looked at at once
Inputs = Iterable[tuple[list[Tensor], Tensor]]  # of `LinearProbes.stacked` and labels, batch by batch


class Training:
    """Linear probes, the standardisation of their features, and validation accuracies `(epochs, G, S)` so far.

    Args:
        widths: of the recipe's layers.
    """

    def __init__(self, recipe: SGDRecipe, widths: list[int], device: str) -> None:
        of_groups = [sum(widths[layer] for layer in group) for group in recipe.members]
        like, shape = torch.zeros((), device=device), (len(widths), max(widths))
        self.recipe, self.widths = recipe, widths
        self.probes = LinearProbes(of_groups, recipe.rates, recipe.num_classes, like)
        self.mean, self.scale = like.new_zeros(shape), like.new_ones(shape)
        self.val_accuracy = torch.full((recipe.epochs, len(recipe.groups), len(recipe.rates)), torch.nan)
        self.epochs_done = 0

    def measure(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Standardise by the mean and deviation of these features."""
        moments = Moments()
        for features, _ in batches:
            moments.add(features)
        self.mean.copy_(moments.mean.float())  # first, since not every device takes float64
        self.scale.copy_(moments.scale().float())

    def inputs(self, features: Tensor) -> list[Tensor]:
        """What the probes see of features `(L, B, W)`, `(groups, B, D)` for each stack."""
        mean, scale = (self.mean, self.scale) if self.recipe.standardise else (None, None)
        return self.probes.stacked(group_inputs(features, self.recipe.members, mean, scale, self.widths))

    def state(self) -> dict[str, Any]:
        """What a later call resumes from; no random state is needed."""
        own = {"mean": self.mean.cpu(), "scale": self.scale.cpu(), "val_accuracy": self.val_accuracy}
        values, momenta = self.probes.state()
        named = {f"probes.{name}": value for name, value in values.items()}
        return {"state_dict": own | named, "momentum": momenta, "epochs_done": self.epochs_done}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        found = state["state_dict"]
        self.mean.copy_(found["mean"])
        self.scale.copy_(found["scale"])
        self.val_accuracy, self.epochs_done = found["val_accuracy"], state["epochs_done"]
        named = {name.removeprefix("probes."): value for name, value in found.items() if name.startswith("probes.")}
        self.probes.load(named, state["momentum"])


class Streamed:
    """Inputs of a training, computed batch by batch."""

    def __init__(self, training: Training, source: FrozenFeatures) -> None:
        self.training, self.source = training, source

    def epoch(self, number: int) -> Inputs:
        """The batches of a training epoch."""
        return ((self.training.inputs(features), labels) for features, labels in self.source.epoch(number))

    def split(self, name: str) -> Inputs:
        """All images of a split."""
        return ((self.training.inputs(features), labels) for features, labels in self.source.split(name))


class InMemory:
    """Inputs of a training that never change, kept on the device as `(N, groups, D)`: a batch is one gather of rows."""

    def __init__(self, training: Training, source: FrozenFeatures, stored: Mapping[str, "StoredFeatures"]) -> None:
        self.source = source
        self.kept: dict[str, list[Tensor]] = {}
        self.labels = {name: images.labels.to(source.compute.device) for name, images in stored.items()}
        for name, images in stored.items():
            shapes = [(len(images), len(stack.groups), stack.values[0].shape[2]) for stack in training.probes.stacks]
            self.kept[name] = [training.mean.new_empty(shape) for shape in shapes]
            for part in torch.arange(len(images)).split(ROWS):
                found = training.inputs(source.of(images.__getitems__(part.tolist())[0]))
                for kept, inputs in zip(self.kept[name], found, strict=True):
                    kept[part[0] : part[-1] + 1] = inputs.transpose(0, 1)

    def epoch(self, number: int) -> Inputs:
        """The batches of a training epoch."""
        for rows in self.source.order(number):
            chosen = [kept.index_select(0, rows).transpose(0, 1) for kept in self.kept["train"]]
            yield chosen, self.labels["train"][rows]

    def split(self, name: str) -> Inputs:
        """All images of a split."""
        parts = zip(*(kept.transpose(0, 1).split(ROWS, 1) for kept in self.kept[name]), strict=True)
        return ((list(part), labels) for part, labels in zip(parts, self.labels[name].split(ROWS), strict=True))


@torch.no_grad()
def sgd_probe(
    module: Probed,
    data: ImageDataModule,
    recipe: SGDRecipe,
    folder: Path,
    compute: Compute,
    stored: Mapping[str, "StoredFeatures"] | None = None,
    keep: Callable[[int, int, Compute], bool] = fits,
) -> list[LayerResult]:
    """Train linear probes on every group of layers with every rate in one pass an epoch, and test the best rates.

    Training images come augmented and in a new order every epoch, validation and test images as they are. The state is
    written to `folder`/sgd.ckpt after epochs; a call with the same arguments resumes from there, bit for bit.

    Args:
        module: frozen; its weights are not part of the state.
        compute: where all runs, and in which precision the network; the probes are always float32.
        stored: for each split its features of the recipe's layers in place of the images; the network is then not run.
            Right only where neither augmentation nor masks change an image's features from epoch to epoch.
        keep: whether so many bytes of stored features are kept in memory, else they are read batch by batch.

    Returns:
        A result of each group with the rate of best validation accuracy after the last epoch, the only one tested.

    Raises:
        UserError: fewer images than a batch, or `folder` holds an unfinished probe of another network, data or recipe.
    """
    data.prepare_data()
    source = FrozenFeatures(module, data, recipe.layers, recipe.how, compute, stored=stored)
    kind = str(stored["train"][0][0].dtype) if stored else "images"
    header = header_of(CLASS_PATH, module, data, recipe, compute.precision, kind)
    file = Unfinished(Path(folder) / FILE, header, {"state_dict": dict, "momentum": dict, "epochs_done": int})
    widths = module.core.widths(recipe.layers, recipe.how)
    with frozen(module, compute), Progress(recipe.epochs * source.steps, "steps: sgd", quiet=True) as progress:
        training = Training(recipe, widths, compute.device)
        if saved := file.read():
            training.load(saved)
        elif recipe.standardise:
            training.measure(source.split("train", source.chosen(recipe.statistics_images)))
        size = 4 * sum(training.probes.widths) * sum(map(len, source.images.values()))
        kept = stored if stored and keep(size, KEPT_BYTES, compute) else None
        inputs = InMemory(training, source, kept) if kept else Streamed(training, source)
        run_epochs(training, inputs, file, source.steps, progress)
        chosen = best_rates(training.val_accuracy[-1], recipe.rates)
        tested = accuracy_of(training.probes.right, inputs.split("test"))
    rows = zip(recipe.groups, chosen, training.val_accuracy[-1].tolist(), tested.tolist(), strict=True)
    return [
        LayerResult(tuple(group), recipe.rates[s], val[s], test[s], tried=dict(zip(recipe.rates, val, strict=True)))
        for group, s, val, test in rows
    ]


def run_epochs(
    training: Training, inputs: Streamed | InMemory, file: Unfinished, steps: int, progress: Progress
) -> None:
    """The epochs that are left; the rates fall to zero by a cosine over all of them."""
    epochs = training.recipe.epochs
    progress.add(training.epochs_done * steps)
    for epoch in range(training.epochs_done, epochs):
        for step, batch in enumerate(inputs.epoch(epoch), epoch * steps):
            training.probes.step(*batch, warmup_cosine(step, 0, epochs * steps))
            progress.add(1)
        training.val_accuracy[epoch] = accuracy_of(training.probes.right, inputs.split("val"))
        training.epochs_done = epoch + 1
        file.write(training.state, last=epoch + 1 == epochs)


class StoredFeatures(LabelledImages):
    """Data set of one split's stored features `(L, W)` in place of its images, read from disk on access."""

    labels: Tensor

    def __init__(self, store: FeatureStore, split: str, layers: list[int]) -> None:
        self.labels = store.labels(split)
        self._rows = store.rows(layers)
        self._width = max(store.widths[row] for row in self._rows)
        self._stored = store.mapped(split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        features, labels = self.__getitems__([index])
        return features[0], int(labels[0])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: `(B, L, W)` in the type on disk, and labels `(B,)`."""
        features = torch.from_numpy(self._stored[np.ix_(self._rows, indices)][..., : self._width])
        return features.transpose(0, 1), self.labels[indices]


def by_sgd(task: ProbeTask, groups: list[Group]) -> list[LayerResult]:
    """All groups of layers and all rates in one training: over the images, or over features that never change."""
    options, together = task.options, [list(group) for group in groups]
    epochs = options.epochs or EPOCHS
    recipe = SGDRecipe(together, options.features, task.classes, epochs=epochs, standardise=options.standardise)
    stored: dict[str, StoredFeatures] | None = None
    if task.features is not None and not task.changing:
        stored = {name: StoredFeatures(task.features, name, recipe.layers) for name in SPLITS}
    return sgd_probe(task.loaded.module, task.data, recipe, state_folder("sgd", task, groups), task.compute, stored)


def sgd_settings(task: ProbeTask) -> dict[str, Any]:
    """Epochs, and whether features were computed anew."""
    return {
        "epochs": task.options.epochs or EPOCHS,
        "images": "anew in every epoch" if task.changing else "stored features",
    }


SGD = ProbeMethod(
    "sgd",
    "rate",
    "logistic regression by SGD with momentum 0.9 and a cosine; rate of best validation accuracy; not refitted",
    by_sgd,
    settings=sgd_settings,
    forget=partial(forget, "sgd"),
    stored=lambda task: not task.changing,
)
