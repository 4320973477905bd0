"""Linear probes of many layers and learning rates, trained at once beside a frozen network (paper, section 2.4)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor
from torch.utils.data import Dataset

from igpt.checkpoints import CHECKPOINT_KEY, read_checkpoint
from igpt.data import (
    SPLITS,
    ChosenImages,
    ImageDataModule,
    LabelledImages,
    WatchedLoader,
    begin_worker,
    collate,
    rng_of,
)
from igpt.modules import FEATURES, Batch, PixelModule
from igpt.probing.methods.sgd import (
    LinearProbes,
    Moments,
    SGDRecipe,
    best_rates,
    group_inputs,
    make_optimizer,
    problem_losses,
    right_counts,
    weighted_loss,
)
from igpt.probing.protocol import Group, LayerResult, ProbeMethod, ProbeTask
from igpt.probing.store import FeatureStore
from igpt.system import Compute, Progress, UserError, atomic_path, remove_own
from igpt.training import quiet_trainer

TRAIN, VAL, TEST = range(len(SPLITS))
FILE = "sgd.ckpt"
STATE = (FILE, ".sgd.*.ckpt")  # files that an unfinished probe leaves
CLASS_PATH = "igpt.modules.layer_probe.LayerProbe"  # in the header of that file; where the class once was


class LayerProbe(pl.LightningModule):
    """Linear probes on the features of a frozen network.

    The network runs once a batch, whatever the number of layers and rates, in the precision of `compute`; the probes
    and the trainer are float32. It is no submodule, so that neither the trainer nor a checkpoint sees it.
    """

    mean: Tensor
    scale: Tensor
    val_accuracy: Tensor

    def __init__(self, network: PixelModule, recipe: SGDRecipe, steps_per_epoch: int, compute: Compute) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple, where torch does not look for submodules
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.compute = compute
        self.epochs_done = 0  # before this fit; Lightning counts its own epochs from there
        self.chosen: list[int] | None = None
        width = network.core.transformer.config.d_model * recipe.how.grid**2
        n_rates = len(recipe.rates)
        self.probes = LinearProbes([len(group) * width for group in recipe.groups], n_rates, recipe.num_classes)
        self.register_buffer("mean", torch.zeros(len(recipe.layers), width))
        self.register_buffer("scale", torch.ones(len(recipe.layers), width))
        self.register_buffer("val_accuracy", torch.full((recipe.epochs, len(recipe.groups), n_rates), torch.nan))
        self._momentum: dict[int, Any] = {}
        self._moments = Moments()
        self._right, self._seen = torch.zeros(()), 0

    @property
    def epoch(self) -> int:
        """Number of the running epoch, from 0, with those before a resumption."""
        return self.epochs_done + self.current_epoch

    def setup(self, stage: str) -> None:
        """Move the network to the trainer's device, as Lightning does with submodules only."""
        self._network[0].to(self.trainer.strategy.root_device)

    @torch.no_grad()
    def features(self, images: Tensor, *key: int) -> Tensor:
        """Features float32 `(L, B, W)` of images uint8 `(B, 3, R, R)`; BERT's masks belong to `key`.

        Floating `(B, L, W)` in place of images are features that were computed before.
        """
        if images.is_floating_point():
            return images.transpose(0, 1).float()
        core, recipe = self._network[0].core, self.recipe
        with self.compute.autocast():
            found = core.features(core.encode(images), recipe.layers, recipe.how, rng_of(FEATURES, *key))
        return found.float()

    def logits(self, images: Tensor, *key: int) -> list[Tensor]:
        """Logits `(B, S, K)` of each group."""
        features = self.features(images, *key)
        moments = (self.mean, self.scale) if self.recipe.standardise else ()
        logits: list[Tensor] = self.probes(group_inputs(features, self.recipe.members, *moments), self.chosen)
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """Update the running mean and deviation."""
        self._moments.add(self.features(batch[0], TRAIN, batch_idx))
        return self._moments.count  # Lightning warns of None

    def on_predict_end(self) -> None:
        """Keep mean and deviation for standardising."""
        self.mean.copy_(self._moments.mean.float())  # first, since not every device takes float64
        self.scale.copy_(self._moments.scale().float())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of all losses, each times its learning rate."""
        losses = problem_losses(self.logits(batch[0], TRAIN, batch_idx, self.epoch), batch[1])
        return weighted_loss(losses, self.recipe.rates)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count what the problems in `chosen` get right."""
        self.validation_step(batch, batch_idx, TEST)

    def validation_step(self, batch: Batch, batch_idx: int, split: int = VAL) -> None:
        """Count what every problem gets right."""
        images, labels = batch
        if batch_idx == 0:
            self._right, self._seen = torch.zeros((), dtype=torch.int64, device=self.device), 0
        self._right = self._right + right_counts(self.logits(images, split, batch_idx), labels)
        self._seen += len(labels)

    @property
    def accuracy(self) -> Tensor:
        """Shares of right answers `(G, S)` over the images counted last."""
        return self._right.float() / self._seen

    def on_validation_epoch_end(self) -> None:
        """Record the accuracies of this epoch."""
        self.val_accuracy[self.epoch] = self.accuracy

    def configure_optimizers(self) -> Any:
        """Momentum SGD with a cosine to zero, from the resumed epoch on."""
        total, done = (epochs * self.steps_per_epoch for epochs in (self.recipe.epochs, self.epochs_done))
        optimizer, schedule = make_optimizer(self.probes, total, done)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": self._momentum})
        self._momentum = {}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state(self) -> dict[str, Any]:
        """What a later run resumes from; no random state is needed."""
        momentum = self.trainer.optimizers[0].state_dict()["state"]
        return {"state_dict": self.state_dict(), "momentum": momentum, "epochs_done": self.epoch + 1}

    def resume(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.load_state_dict(state["state_dict"])
        self._momentum, self.epochs_done = state["momentum"], state["epochs_done"]


def sgd_probe(
    module: PixelModule,
    data: ImageDataModule,
    recipe: SGDRecipe,
    folder: Path,
    compute: Compute,
    stored: Mapping[str, LabelledImages] | None = None,
) -> list[LayerResult]:
    """Train linear probes on every group of layers with every rate in one pass an epoch, and test the best rates.

    Training images come augmented and in a new order every epoch, validation and test images as they are. The state is
    written to `folder`/sgd.ckpt after every epoch; a call with the same arguments resumes from there, bit for bit.

    Args:
        module: frozen; its weights are not part of the checkpoint.
        compute: where the network runs, and in which precision; the probes are always float32.
        stored: for each split its features of the recipe's layers in place of the images; the network is then not run.
            Right only where neither augmentation nor masks change an image's features from epoch to epoch.

    Returns:
        A result of each group with the rate of best validation accuracy after the last epoch, the only one tested.

    Raises:
        UserError: fewer images than a batch, or `folder` holds an unfinished probe of another network, data or recipe.
    """
    data.prepare_data()
    images = stored or {name: data.images(name) for name in SPLITS}
    source = str(images["train"][0][0].dtype) if stored else "images"
    path, header = Path(folder) / FILE, header_of(module, data, recipe, compute.precision, source)
    probe = LayerProbe(module, recipe, data.steps_per_epoch(), compute)
    saved = unfinished_or_same(path, header)

    def save(trainer: pl.Trainer, probe: Any) -> None:  # the epoch's validation is over by then
        with atomic_path(path) as partial_path:
            torch.save({CHECKPOINT_KEY: header, **probe.state()}, partial_path)

    trainer = partial(quiet_trainer, replace(compute, precision="32-true"))  # the network alone runs in less
    place, was_training = module.device, module.training
    try:
        module.eval()
        if saved is not None:
            probe.resume(saved)
        elif recipe.standardise:
            chosen = torch.randperm(len(images["train"]), generator=rng_of(data.seed))[: recipe.statistics_images]
            some = ChosenImages(images["train"], chosen.sort().values.tolist())
            trainer().predict(probe, in_batches(data, some), return_predictions=False)
        if probe.epochs_done < recipe.epochs:
            with Progress(recipe.epochs * probe.steps_per_epoch, "steps: sgd", quiet=True) as progress:
                progress.add(probe.epochs_done * probe.steps_per_epoch)
                each = LambdaCallback(on_train_epoch_end=save, on_train_batch_end=lambda *_: progress.add(1))
                loaders = data.training_loader(images["train"], probe.epochs_done), in_batches(data, images["val"])
                trainer(max_epochs=recipe.epochs - probe.epochs_done, callbacks=[each]).fit(probe, *loaders)
        probe.chosen = best_rates(probe.val_accuracy[-1], recipe.rates)
        trainer().test(probe, in_batches(data, images["test"]), verbose=False)
    finally:
        module.to(place).train(was_training)
    rows = zip(recipe.groups, probe.chosen, probe.val_accuracy[-1].tolist(), probe.accuracy[:, 0].tolist(), strict=True)
    return [
        LayerResult(tuple(group), recipe.rates[s], val[s], test, tried=dict(zip(recipe.rates, val, strict=True)))
        for group, s, val, test in rows
    ]


def in_batches(data: ImageDataModule, images: Dataset[Any]) -> WatchedLoader:
    """A loader with the data's batch size and number of processes."""
    size, workers = data.batch_size, data.num_workers
    return WatchedLoader(images, batch_size=size, collate_fn=collate, num_workers=workers, worker_init_fn=begin_worker)


def header_of(
    module: PixelModule, data: ImageDataModule, recipe: SGDRecipe, precision: str, source: str
) -> dict[str, Any]:
    """The checkpoint's header: network, data and recipe; `source` is "images", or the type of stored features."""
    spec = data.spec()
    spec["init_args"].pop("num_workers", None)
    about = {"network": weights_sha256(module), "data": spec, "precision": precision, "source": source}
    plain = {**asdict(recipe), "rates": list(recipe.rates)}
    return {"format": 1, "model": {"class_path": CLASS_PATH, "init_args": {**plain, **about}}}


def unfinished_or_same(path: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """The state to resume from; None where there is none, or that of a finished probe of something else.

    Raises:
        UserError: the file is damaged, not a probe's state, or that of another unfinished probe.
    """
    if not path.exists():
        return None
    content = read_checkpoint(path)
    parts = {"state_dict": dict, "momentum": dict, "epochs_done": int}  # of another kind: such as one of training
    found, wanted = (head["model"]["init_args"] for head in (content[CHECKPOINT_KEY], header))
    of_a_probe = content[CHECKPOINT_KEY]["model"]["class_path"] == CLASS_PATH
    if not of_a_probe or not all(isinstance(content.get(name), kind) for name, kind in parts.items()):
        raise UserError(f"{path} is no state of a probe; delete it or change --out")
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if not differing:
        return content
    if content["epochs_done"] == found.get("epochs"):
        return None
    raise UserError(
        f"{path}: an unfinished probe with another {', '.join(differing)}; finish it, delete it or change --out"
    )


def weights_sha256(module: PixelModule) -> str:
    """SHA-256 of the network's description, weights, palette and pixel order."""
    found = hashlib.sha256(json.dumps(module.core.spec(), sort_keys=True).encode())
    for name, value in module.core.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


class StoredFeatures(LabelledImages):
    """Data set of one split's stored features `(L, W)` in place of its images, read from disk on access."""

    def __init__(self, store: FeatureStore, split: str, layers: list[int]) -> None:
        self.labels = store.labels(split)
        self._rows = store.rows(layers)
        self._stored = store.mapped(split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        features, labels = self.__getitems__([index])
        return features[0], int(labels[0])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: `(B, L, W)` in the type on disk, and labels `(B,)`."""
        assert isinstance(self.labels, Tensor)
        features = torch.from_numpy(self._stored[np.ix_(self._rows, indices)])
        return features.transpose(0, 1), self.labels[indices]


def by_sgd(task: ProbeTask, groups: list[Group]) -> list[LayerResult]:
    """All groups of layers and all rates in one training: over the images, or over features that never change."""
    options, together = task.options, [list(group) for group in groups]
    recipe = SGDRecipe(together, options.features, task.classes, epochs=options.epochs, standardise=options.standardise)
    stored: dict[str, LabelledImages] | None = None
    if task.features is not None and not task.changing:
        stored = {name: StoredFeatures(task.features, name, recipe.layers) for name in SPLITS}
    return sgd_probe(task.loaded.module, task.data, recipe, state_folder(task, groups), task.compute, stored)


def state_folder(task: ProbeTask, groups: list[Group]) -> Path:
    """Where a killed probe of these groups is resumed from."""
    layers = sorted({layer for group in groups for layer in group})
    return task.folder / "sgd" / "_".join(["layers", *map(str, layers)])


def sgd_settings(task: ProbeTask) -> dict[str, Any]:
    """Epochs, and whether features were computed anew."""
    return {"epochs": task.options.epochs, "images": "anew in every epoch" if task.changing else "stored features"}


def forget(task: ProbeTask, groups: list[Group]) -> None:
    """Remove the checkpoint of one training, and nothing else."""
    remove_own(state_folder(task, groups), STATE)
    remove_own(task.folder / "sgd", ())


SGD = ProbeMethod(
    "sgd",
    "rate",
    "logistic regression by SGD with momentum 0.9 and a cosine; rate of best validation accuracy; not refitted",
    by_sgd,
    settings=sgd_settings,
    forget=forget,
    stored=False,
)
