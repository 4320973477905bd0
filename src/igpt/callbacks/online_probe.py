"""Linear probe during training: the accuracy of a few layers' features, beside the loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from igpt.data import ImageDataModule, Split, any_unlabelled, collate, fetch, rng_of
from igpt.modules import PixelModule
from igpt.probing import accuracy, fit_probes, probing_device, standardise
from igpt.system import UserError
from igpt.training import is_accumulating


class OnlineProbe(pl.Callback):
    """Logs `probe/layer_K`, accuracy on validation images, and `probe/best` (paper, sections 2.4 and 4.2).

    A logistic regression with a fixed L2 penalty on standardised features of some unaugmented training images. It is
    quick and always on the same images, so it compares steps of one run; for figures to report use `igpt probe`.
    Training is not disturbed: random numbers and modes are as they were. A run's step is the x axis.

    Args:
        layers: which of 0..L; None is the input, the middle and the last, 0, L // 2 and L.
        every_n_steps: optimizer steps between two probes.
        train_images: at most so many training images, chosen by the seed.
        val_images: at most so many validation images, chosen by the seed.
        l2: factor of the penalty; see `igpt.probing.methods.lbfgs`.
        seed: of the choice of images.
        strength: the name of `l2` in igpt 0.1.

    Raises:
        UserError: a value out of range, a layer that does not exist, or data without labels.
    """

    def __init__(
        self,
        layers: list[int] | None = None,
        every_n_steps: int = 1000,
        train_images: int = 1024,
        val_images: int = 1024,
        l2: float = 0.001,
        seed: int = 0,
        strength: float | None = None,
    ) -> None:
        self.layers = layers
        self.every_n_steps = every_n_steps
        self.train_images = train_images
        self.val_images = val_images
        self.l2 = l2 if strength is None else strength
        self.seed = seed
        if min(every_n_steps, train_images, val_images) < 1 or not self.l2 > 0:
            raise UserError("OnlineProbe: every_n_steps, train_images and val_images must be at least 1, l2 positive")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check model, layers and labels before training begins."""
        if stage != "fit":
            return
        if not isinstance(pl_module, PixelModule):
            raise UserError(f"OnlineProbe needs a model of igpt, not {type(pl_module).__name__}; leave it out")
        last = pl_module.core.n_layers
        self._chosen = sorted(set((0, last // 2, last) if self.layers is None else self.layers))
        if not self._chosen or self._chosen[0] < 0 or self._chosen[-1] > last:
            given = ",".join(map(str, self._chosen)) or "[]"
            raise UserError(f"OnlineProbe.layers {given}: this model has layers 0 to {last}; choose some of these")
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():
            train = some_images(data, "train", self.train_images, self.seed)
            val = some_images(data, "val", self.val_images, self.seed)
        self._images, self._labels = {"train": train[0], "val": val[0]}, {"train": train[1], "val": val[1]}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Probe at the end of every n-th step."""
        if is_accumulating(trainer) or trainer.global_step % self.every_n_steps:
            return
        assert isinstance(pl_module, PixelModule)
        size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        with undisturbed(pl_module), trainer.precision_plugin.forward_context():
            features = {name: layer_features(pl_module, i, self._chosen, size) for name, i in self._images.items()}
        scores = probe_scores(features, self._labels, self.l2)
        values = {f"probe/layer_{layer}": score for layer, score in zip(self._chosen, scores, strict=True)}
        values["probe/best"] = max(scores)
        pl_module.log_dict(values, logger=False)  # for other callbacks and the progress bar
        for logger in trainer.loggers:  # not by `log`, which drops what falls between the trainer's log points
            logger.log_metrics(values, step=trainer.global_step)


def some_images(data: ImageDataModule, name: Split, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `count` images of a split, uint8 `(N, 3, R, R)`, with labels `(N,)`; chosen by the seed, unaugmented.

    Raises:
        UserError: some of them have no label, or all have the same.
    """
    split = data.images(name)
    indices = torch.randperm(len(split), generator=rng_of(seed))[:count].tolist()
    images, labels = collate(fetch(split, indices))
    if any_unlabelled(labels):
        raise UserError(f"OnlineProbe: {type(data).__name__} has images without a label; leave OnlineProbe out")
    if name == "train" and int(labels.min()) == int(labels.max()):
        raise UserError("OnlineProbe: all images have the same label; use more train_images, or leave OnlineProbe out")
    return images, labels


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modes of all submodules and the RNG state are restored afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        with isolate_rng(), torch.no_grad():
            module.eval()
            yield
    finally:
        for part, training in modes:
            part.training = training


def layer_features(module: PixelModule, images: Tensor, layers: list[int], batch_size: int) -> Tensor:
    """Features float32 `(len(layers), N, D)` of images uint8 `(N, 3, R, R)`, on the module's device."""
    parts = [
        module.core.features(module.core.encode(part.to(module.device)), layers).float()
        for part in images.split(batch_size)
    ]
    return torch.cat(parts, dim=1)


def probe_scores(features: dict[str, Tensor], labels: dict[str, Tensor], l2: float) -> list[float]:
    """Validation accuracy of each layer's probe, from features `(L, N, D)` and labels `(N,)` of "train" and "val"."""
    device = probing_device(features["train"].device)
    train, val = standardise(features["train"], [features["train"], features["val"]])
    classes = int(max(part.max() for part in labels.values())) + 1
    probes = fit_probes(train.to(device), labels["train"].to(device), [l2], classes)
    scores: list[float] = accuracy(probes.logits(val.to(device)), labels["val"].to(device))[:, 0].tolist()
    return scores
