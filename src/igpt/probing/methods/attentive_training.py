"""Attentive probes of many layers and rates, trained at once on the tokens of a frozen network."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.data import ImageDataModule
from igpt.families import ProbedSource
from igpt.probing.methods.attentive import EPOCHS, QUERIES, STEPS, AttentiveProbes, AttentiveRecipe, queries_of
from igpt.probing.methods.batches import FrozenFeatures, accuracy_of, fits, frozen
from igpt.probing.methods.sgd import best_rates
from igpt.probing.methods.unfinished import Unfinished, forget, header_of, state_folder
from igpt.probing.protocol import Group, LayerResult, Probed, ProbeMethod, ProbeOptions, ProbeTask
from igpt.system import Compute, Progress, UserError
from igpt.training import warmup_cosine

FILE = "attentive.ckpt"
CLASS_PATH = "igpt.probing.attentive"  # in the header of that file: the name of its format
KEPT_BYTES = 2**32  # of the tokens of all training images, up to which they are kept in memory
Batch = tuple[Iterator[Tensor], Tensor]  # tokens `(B, T, D)` of one layer after another, and labels `(B,)`


class Streamed:
    """Tokens of training images by the network, anew in every epoch, rounded as kept ones are."""

    def __init__(self, source: FrozenFeatures, dtype: torch.dtype) -> None:
        self.source, self.dtype = source, dtype

    def rounded(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Batches of tokens, layer by layer."""
        return ((iter(tokens.to(self.dtype).float()), labels) for tokens, labels in batches)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of a training epoch."""
        return self.rounded(self.source.epoch(number))

    def some(self, count: int) -> Iterator[Tensor]:
        """Tokens `(L, B, T, D)` of at most so many images, for mean and deviation."""
        batches = self.source.split("train", self.source.chosen(count))
        return (tokens.to(self.dtype).float() for tokens, _ in batches)


class InMemory:
    """Tokens of training images that never change, kept on the device as `(L, N, T, D)`."""

    def __init__(self, source: FrozenFeatures, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.source = source
        self.kept = torch.empty(shape, dtype=dtype, device=source.compute.device)
        self.labels = torch.empty(shape[1], dtype=torch.int64, device=source.compute.device)
        start = 0
        with Progress(shape[1], "images: tokens", quiet=True) as progress:
            for tokens, labels in source.split("train"):
                end = start + len(labels)
                self.kept[:, start:end], self.labels[start:end] = tokens, labels
                progress.add(len(labels))
                start = end

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of a training epoch."""
        for rows in self.source.order(number):
            yield (layer.index_select(0, rows).float() for layer in self.kept), self.labels[rows]

    def some(self, count: int) -> Iterator[Tensor]:
        """Tokens `(L, B, T, D)` of at most so many images, for mean and deviation."""
        rows = self.source.chosen(count).to(self.kept.device)
        return (self.kept[:, part].float() for part in rows.split(self.source.data.batch_size))


@torch.no_grad()
def attentive_probe(
    module: Probed,
    data: ImageDataModule,
    recipe: AttentiveRecipe,
    folder: Path,
    compute: Compute,
    changing: bool = False,
    keep: Callable[[int, int, Compute], bool] = fits,
) -> list[LayerResult]:
    """Train an attentive probe on every layer with every rate in one pass an epoch, and test the best rates.

    The state is written to `folder`/attentive.ckpt after epochs; the same call resumes from there, bit for bit.

    Args:
        module: frozen; the layers of one call have tokens of one number and width.
        compute: where all runs, and in which precision the network; the probes are always float32.
        changing: the tokens of an image differ from epoch to epoch, and cannot be kept.
        keep: whether so many bytes of tokens are kept in memory; the network runs again in every epoch otherwise.

    Returns:
        A result of each layer with the rate of best validation accuracy after the last epoch, the only one tested.

    Raises:
        UserError: fewer images than a batch, or `folder` holds an unfinished probe of another network, data or recipe.
    """
    data.prepare_data()
    source = FrozenFeatures(module, data, recipe.layers, recipe.how, compute, pooled=False)
    header = header_of(CLASS_PATH, module, data, recipe, compute.precision, "images")
    parts = {"state_dict": dict, "steps": int, "epochs_done": int}
    file, dtype = Unfinished(Path(folder) / FILE, header, parts), getattr(torch, recipe.dtype)
    length, width = module.core.token_shape(recipe.layers[0])
    shape = len(recipe.layers), len(source.images["train"]), length, width
    probes = AttentiveProbes(recipe, width, torch.zeros((), device=compute.device))
    with frozen(module, compute):
        streamed = Streamed(source, dtype)
        if saved := file.read():
            probes.load(saved)
        if probes.epochs_done < recipe.epochs:
            kept = not changing and keep(dtype.itemsize * torch.Size(shape).numel(), KEPT_BYTES, compute)
            tokens = InMemory(source, dtype, shape) if kept else streamed
            if recipe.standardise and not probes.epochs_done:
                probes.standardise(tokens.some(recipe.statistics_images))
            run_epochs(probes, tokens, file, source.steps, recipe.epochs)
        found = [accuracy_of(probes.right, streamed.rounded(source.split(name))) for name in ("val", "test")]
    chosen = best_rates(found[0], recipe.rates)
    rows = zip(recipe.layers, chosen, *(part.tolist() for part in found), strict=True)
    return [
        LayerResult((layer,), recipe.rates[s], val[s], test[s], tried=dict(zip(recipe.rates, val, strict=True)))
        for layer, s, val, test in rows
    ]


def run_epochs(probes: AttentiveProbes, tokens: Streamed | InMemory, file: Unfinished, steps: int, epochs: int) -> None:
    """The epochs that are left; the rates fall to zero by a cosine over all of them."""
    with Progress(epochs * steps, "steps: attentive", quiet=True) as progress:
        progress.add(probes.epochs_done * steps)
        for epoch in range(probes.epochs_done, epochs):
            for step, (layers, labels) in enumerate(tokens.epoch(epoch), epoch * steps):
                probes.step(layers, labels, warmup_cosine(step, 0, epochs * steps))
                progress.add(1)
            probes.epochs_done = epoch + 1
            file.write(probes.state, last=probes.epochs_done == epochs)


def by_attention(task: ProbeTask, groups: list[Group]) -> list[LayerResult]:
    """A head of every layer and rate, of layers that are alike in one training."""
    options, results = task.options, []
    for alike in trainings(task, groups):
        recipe = AttentiveRecipe(
            [layer for (layer,) in alike], options.features, task.classes, epochs=epochs_of(task),
            standardise=options.standardise, dtype=options.stored_as,
        )  # fmt: skip
        folder = state_folder("attentive", task, alike)
        results += attentive_probe(task.loaded.module, task.data, recipe, folder, task.compute, task.changing)
    return sorted(results, key=lambda result: result.layer)


def trainings(task: ProbeTask, groups: list[Group]) -> list[list[Group]]:
    """The layers in parts of one number and width of tokens, which is all at once for igpt's own networks."""
    parts: dict[tuple[int, int], list[Group]] = {}
    for group in groups:
        parts.setdefault(task.loaded.module.core.token_shape(group[0]), []).append(group)
    return list(parts.values())


def forget_all(task: ProbeTask, groups: list[Group]) -> None:
    """Remove the states of these trainings, and nothing else."""
    for alike in trainings(task, groups):
        forget("attentive", task, alike)


def epochs_of(task: ProbeTask) -> int:
    """Passes over the training images, where none are given enough for Adam to arrive."""
    return task.options.epochs or max(EPOCHS, math.ceil(STEPS / task.data.steps_per_epoch()))


def settings(task: ProbeTask) -> dict[str, Any]:
    """Epochs, queries, and whether tokens were computed anew."""
    core = task.loaded.module.core
    queries = [queries_of(core.token_shape(layer)[1], QUERIES) for layer in task.layers]
    tokens = "anew in every epoch" if task.changing else "the same in every epoch"
    return {"epochs": epochs_of(task), "queries": queries if len(set(queries)) > 1 else queries[0], "tokens": tokens}


def check(options: ProbeOptions, module: Probed) -> None:
    """Raise a UserError for what is defined for mean features alone."""
    if isinstance(module, ProbedSource) and not module.has_tokens:
        raise UserError(
            f"--method attentive reads tokens, and {module.name} gives one vector an image; leave attentive out"
        )
    if options.concat is not None:
        raise UserError("--concat: the attentive probe reads one layer; leave --concat or --method attentive out")
    if options.features.grid > 1:
        raise UserError(f"--grid {options.features.grid}: the attentive probe pools by itself; leave one of them out")


ATTENTIVE = ProbeMethod(
    "attentive",
    "rate",
    "attention of learned queries over a layer's tokens, then logistic regression (Psomas et al. 2026), by Adam with a "
    "cosine; rate of best validation accuracy; not refitted",
    by_attention,
    settings=settings,
    forget=forget_all,
    stored=lambda task: False,
    check=check,
    in_all=False,
)
