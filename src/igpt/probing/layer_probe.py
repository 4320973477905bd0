"""The linear probes of many layers and learning rates, trained at once beside a frozen network (paper, section 2.4)."""

import hashlib
import json
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.data import SPLITS, rng_of
from igpt.modules import FEATURES, Batch, PixelModule
from igpt.probing.sgd import (
    LinearProbes,
    Moments,
    SGDRecipe,
    group_inputs,
    make_optimizer,
    problem_losses,
    right_counts,
    weighted_loss,
)
from igpt.system import Compute

TRAIN, VAL, TEST = range(len(SPLITS))


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


def fingerprint(module: PixelModule) -> str:
    """SHA-256 of all that the network's features depend on: its description, weights, colours and pixel order."""
    found = hashlib.sha256(json.dumps(module.core.spec(), sort_keys=True).encode())
    for name, value in module.core.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()
