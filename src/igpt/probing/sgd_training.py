"""Linear probes of many layers and learning rates, trained at once beside a frozen network (paper, section 2.4)."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from igpt.checkpoints import CHECKPOINT_KEY, read_checkpoint
from igpt.data import (
    SPLITS,
    ChosenImages,
    ImageDataModule,
    LabelledImages,
    WatchedLoader,
    any_unlabelled,
    begin_worker,
    collate,
    rng_of,
)
from igpt.model import FeatureOptions, check_layers
from igpt.modules import FEATURES, Batch, PixelModule
from igpt.probing.sgd import (
    RATES,
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
from igpt.system import Compute, UserError, atomic_path
from igpt.training import quiet_trainer

TRAIN, VAL, TEST = range(len(SPLITS))
FILE = "sgd.ckpt"
STATE = (FILE, ".sgd.*.ckpt")  # files that an unfinished probe leaves
CLASS_PATH = "igpt.modules.layer_probe.LayerProbe"  # in the header of that file; where the class once was
EPOCHS = 30
STATISTICS_IMAGES = 10_000


class LayerProbe(pl.LightningModule):
    """Linear probes on the features of a network that is not trained.

    The network runs once a batch, whatever the number of layers and rates. It is no submodule: neither the trainer nor
    a checkpoint sees it, and its mode stays as it is.

    Args:
        network: whose features are probed.
        recipe: which probes, and how they are trained.
        steps_per_epoch: optimizer steps of each epoch.
        compute: in which precision the network runs; the probes are float32, and so is the trainer.
    """

    mean: Tensor
    scale: Tensor
    val_accuracy: Tensor

    def __init__(self, network: PixelModule, recipe: SGDRecipe, steps_per_epoch: int, compute: Compute) -> None:
        super().__init__()
        self._held = (network,)  # in a tuple, where torch does not look for submodules
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
    def network(self) -> PixelModule:
        """The frozen network."""
        return self._held[0]

    @property
    def epoch(self) -> int:
        """Number of the running epoch, from 0, over all runs that a checkpoint links."""
        return self.epochs_done + self.current_epoch

    def setup(self, stage: str) -> None:
        """Take the network to where the trainer is going to run; nobody else does it."""
        self.network.to(self.trainer.strategy.root_device)

    @torch.no_grad()
    def features(self, images: Tensor, *key: int) -> Tensor:
        """Features float32 `(L, B, W)` of images uint8 `(B, 3, R, R)`; BERT's masks belong to `key`.

        Floating `(B, L, W)` in place of images are features that were computed before.
        """
        if images.is_floating_point():
            return images.transpose(0, 1).float()
        core, recipe = self.network.core, self.recipe
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
        """Take the images' features into mean and deviation."""
        self._moments.add(self.features(batch[0], TRAIN, batch_idx))
        return self._moments.count  # Lightning warns of None

    def on_predict_end(self) -> None:
        """Standardise by what was seen from now on."""
        self.mean.copy_(self._moments.mean.float())  # first, since not every device takes float64
        self.scale.copy_(self._moments.scale().float())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss whose gradient is every problem's own times its rate."""
        images, labels = batch
        losses = problem_losses(self.logits(images, TRAIN, batch_idx, self.epoch), labels)
        return weighted_loss(losses, self.recipe.rates)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count what every problem gets right."""
        self._count(VAL, batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count what the problems in `chosen` get right."""
        self._count(TEST, batch, batch_idx)

    def _count(self, split: int, batch: Batch, batch_idx: int) -> None:
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
        """Keep the accuracies of this epoch."""
        self.val_accuracy[self.epoch] = self.accuracy

    def configure_optimizers(self) -> Any:
        """Momentum SGD with a cosine to zero, going on where `resume` says."""
        optimizer, schedule = make_optimizer(
            self.probes, self.recipe.epochs * self.steps_per_epoch, self.epochs_done * self.steps_per_epoch
        )
        optimizer.load_state_dict({**optimizer.state_dict(), "state": self._momentum})
        self._momentum = {}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state(self) -> dict[str, Any]:
        """All that a later run needs to go on after this epoch; there is no randomness to remember."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.SGD)
        momentum = optimizer.state_dict()["state"]
        return {"state_dict": self.state_dict(), "momentum": momentum, "epochs_done": self.epoch + 1}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.load_state_dict(state["state_dict"])
        self._momentum, self.epochs_done = state["momentum"], state["epochs_done"]


@dataclass(frozen=True)
class SGDResult:
    """What the probe of one group of layers reached; accuracies are shares of 1.

    `rate` is the learning rate with the best validation accuracy after the last epoch, and `val_by_rate` has those of
    all; the test was looked at with this rate only.
    """

    layers: list[int]
    rate: float
    val_accuracy: float
    test_accuracy: float
    val_by_rate: dict[float, float]


class SaveEachEpoch(pl.Callback):
    """Writes the probe's state under `header` after every epoch, over the last one, whole or not at all."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, header

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is over by now."""
        assert isinstance(pl_module, LayerProbe)
        with atomic_path(self.path) as path:
            torch.save({CHECKPOINT_KEY: self.header, **pl_module.state()}, path)


def sgd_probe(
    module: PixelModule,
    data: ImageDataModule,
    groups: list[list[int]],
    how: FeatureOptions,
    *,
    num_classes: int,
    rates: Sequence[float] = RATES,
    epochs: int = EPOCHS,
    standardise: bool = True,
    statistics_images: int = STATISTICS_IMAGES,
    folder: Path,
    compute: Compute,
    stored: Mapping[str, LabelledImages] | None = None,
) -> list[SGDResult]:
    """Train linear probes on every group of layers with every rate in one pass an epoch, and test the best rates.

    Training images come augmented and in a new order every epoch, validation and test images as they are. The state is
    written to `folder`/sgd.ckpt after every epoch; a call with the same arguments goes on from there, and ends with the
    very weights that an uninterrupted run would have.

    Args:
        module: frozen; its weights are not part of the checkpoint.
        data: with labels; its batch size is that of the training.
        groups: layers of each probe; the features of several layers stand one after another.
        how: what counts as a layer's features.
        num_classes: of the data.
        rates: learning rates to choose from.
        epochs: passes over the training images.
        standardise: give every feature mean 0 and deviation 1 over the training images, and the whole a mean squared
            length of 1, so that the same rates suit every layer; False is the paper's.
        statistics_images: at most so many images for mean and deviation, chosen by the data's seed.
        folder: of the checkpoint; made where needed.
        compute: where the network runs, and in which precision; the probes are always float32.
        stored: for each split its features of the recipe's layers in place of the images; the network is then not run.
            Right only where neither augmentation nor masks change an image's features from epoch to epoch.

    Raises:
        UserError: a value out of range, images without a label, or `folder` holds an unfinished probe of another
            network, data or recipe.
    """
    recipe = SGDRecipe(groups, how, num_classes, tuple(map(float, rates)), epochs, standardise, statistics_images)
    data.prepare_data()
    check(module, data, recipe)
    images = stored or {name: data.images(name) for name in SPLITS}
    source = str(images["train"][0][0].dtype) if stored else "images"
    path, header = Path(folder) / FILE, header_of(module, data, recipe, compute.precision, source)
    probe = LayerProbe(module, recipe, data.steps_per_epoch(), compute)
    saved = unfinished_or_same(path, header)
    trainer = partial(quiet_trainer, replace(compute, precision="32-true"))  # the network alone runs in less
    with put_back(module):
        module.eval()
        if saved is not None:
            probe.resume(saved)
        elif standardise:
            take_statistics(probe, trainer(), data, images["train"])
        if probe.epochs_done < epochs:
            left = trainer(max_epochs=epochs - probe.epochs_done, callbacks=[SaveEachEpoch(path, header)])
            left.fit(probe, data.training_loader(images["train"], probe.epochs_done), in_batches(data, images["val"]))
        probe.chosen = best_rates(probe.val_accuracy[-1], recipe.rates)
        trainer().test(probe, in_batches(data, images["test"]), verbose=False)
    return results_of(probe)


@contextmanager
def put_back(module: PixelModule) -> Iterator[None]:
    """Leave the network in the end where it was, and in its mode."""
    place, was_training = module.device, module.training
    try:
        yield
    finally:
        module.to(place).train(was_training)


def take_statistics(probe: LayerProbe, trainer: pl.Trainer, data: ImageDataModule, images: LabelledImages) -> None:
    """Mean and deviation of the features, over as many training images as the recipe says."""
    some = statistics_loader(data, images, probe.recipe.statistics_images)
    trainer.predict(probe, some, return_predictions=False)


def results_of(probe: LayerProbe) -> list[SGDResult]:
    """The results of a probe that was trained and tested with its `chosen` rates."""
    recipe, results = probe.recipe, []
    assert probe.chosen is not None
    tested = probe.accuracy[:, 0].tolist()
    for group, chosen, val, test in zip(
        recipe.groups, probe.chosen, probe.val_accuracy[-1].tolist(), tested, strict=True
    ):
        by_rate = dict(zip(recipe.rates, val, strict=True))
        results.append(SGDResult(group, recipe.rates[chosen], val[chosen], test, by_rate))
    return results


def check(module: PixelModule, data: ImageDataModule, recipe: SGDRecipe) -> None:
    """Raise a UserError where recipe, network and data do not fit together."""
    core = module.core
    check_layers(recipe.layers, core.n_layers)
    recipe.how.check(core.resolution, core.causal)
    if data.size("train") < data.batch_size:
        size = data.size("train")
        raise UserError(f"data.batch_size {data.batch_size} exceeds the train split of {size} images; lower it")
    for name in SPLITS:
        labels = torch.as_tensor(data.images(name).labels)
        if any_unlabelled(labels):
            raise UserError("--data: some images have no label (-1); probing needs labelled images")
        if int(labels.max()) >= recipe.num_classes:
            raise UserError(
                f"--data: label {int(labels.max())} in {name}, but the classes end at {recipe.num_classes - 1}"
            )


def statistics_loader(data: ImageDataModule, images: LabelledImages, count: int) -> WatchedLoader:
    """At most `count` training images, unaugmented; which ones is a function of the data's seed."""
    indices = torch.randperm(len(images), generator=rng_of(data.seed))[:count].sort().values.tolist()
    return in_batches(data, ChosenImages(images, indices))


def in_batches(data: ImageDataModule, images: Dataset[Any], **how: Any) -> WatchedLoader:
    """Batches as large as the data's, loaded by as many processes."""
    how |= {"num_workers": data.num_workers, "worker_init_fn": begin_worker}
    return WatchedLoader(images, batch_size=data.batch_size, collate_fn=collate, **how)


def header_of(
    module: PixelModule, data: ImageDataModule, recipe: SGDRecipe, precision: str, source: str
) -> dict[str, Any]:
    """What a checkpoint's probes are probes of, as plain data; how many processes load the images plays no part.

    `source` is "images", or the type of stored features.
    """
    spec = data.spec()
    spec["init_args"].pop("num_workers", None)
    arguments = {
        **recipe.to_dict(),
        "network": fingerprint(module),
        "data": spec,
        "precision": precision,
        "source": source,
    }
    return {"format": 1, "model": {"class_path": CLASS_PATH, "init_args": arguments}}


def unfinished_or_same(path: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """The state to go on from; None where there is none, or where a finished probe of something else stands.

    Raises:
        UserError: the file is damaged, something else than a probe's state, or the state of another probe that has not
            come to its end.
    """
    if not path.exists():
        return None
    content = read_checkpoint(path)
    check_state(content, path)
    found, wanted = (head["model"]["init_args"] for head in (content[CHECKPOINT_KEY], header))
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if not differing:
        return content
    if content["epochs_done"] == found.get("epochs"):
        return None
    raise UserError(
        f"{path}: an unfinished probe with another {', '.join(differing)}; finish it, delete it or change --out"
    )


def check_state(content: dict[str, Any], path: Path) -> None:
    """Raise a UserError for a checkpoint that is none of `SaveEachEpoch`, such as one of training."""
    parts = {"state_dict": dict, "momentum": dict, "epochs_done": int}
    of_a_probe = content[CHECKPOINT_KEY]["model"]["class_path"] == CLASS_PATH
    if not of_a_probe or not all(isinstance(content.get(name), kind) for name, kind in parts.items()):
        raise UserError(f"{path} is no state of a probe; delete it or change --out")


def fingerprint(module: PixelModule) -> str:
    """SHA-256 of all that the network's features depend on: its description, weights, colours and pixel order."""
    found = hashlib.sha256(json.dumps(module.core.spec(), sort_keys=True).encode())
    for name, value in module.core.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()
