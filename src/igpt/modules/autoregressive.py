"""AR pre-training: predict every pixel from those before it (paper, section 2.1), under conditions where asked for."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from igpt.data import NO_LABEL
from igpt.model import (
    Order,
    SamplingOptions,
    Transformations,
    TransformerConfig,
    check_families,
    check_shape,
    condition_names,
    draw_rows,
    pixel_nll,
    sample,
    transform,
    transformations,
)
from igpt.modules.base import Batch
from igpt.modules.generative import GenerativeModule
from igpt.system import UserError
from igpt.training import Optimizer, Schedule

WITHOUT_CLASS = 0.1  # share of the training images that are shown without their class (Ho & Salimans 2022)


class Autoregressive(GenerativeModule):
    """p(x) = prod p(x_i | x_<i), sos in front, all T pixels scored. For the other arguments see `GenerativeModule`.

    What the network is told about a picture is added to its sos: a vector for each transformation, as in the released
    code of Jun et al. (2020), and one for its class, all zero at first. A picture as it is, without a class, has sos
    alone, so that evaluation, features, surprise and samples are computed as those of the plain model.

    Args:
        augment: families of transformations of the training images, of which one of each is drawn for every image:
            rotate, transpose, flip, colours, jigsaw (`igpt.model.distaug`). A vector for each member of a family, and
            not for each of the thousands of products, is seen often enough to be learned. None has none.
        identity_share: share of the training images that stay as they are; None draws all members of a family equally
            often.
        classes: number of the data's classes, where the network is told the class of each image but of one in ten; a
            config may say 0 and leave it to the data. Losses of labelled images are then -log p(x | class). None is
            told none.

    Raises:
        UserError: a family is unknown, the share or the number of classes is out of range.
    """

    causal = True
    _known: Transformations | None = None  # the tables of `augment`, on the device

    def __init__(
        self,
        transformer: TransformerConfig,
        palette: str | None = None,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
        compile: bool = False,
        recompute: bool = False,
        order: Order = "raster",
        start_from: str | None = None,
        optimizer: Optimizer = "adam",
        schedule: Schedule = "cosine",
        augment: list[str] | None = None,
        identity_share: float | None = None,
        classes: int | None = None,
    ) -> None:
        if identity_share is not None and not (augment and 0 < identity_share < 1):
            raise UserError(f"identity_share {identity_share} must lie between 0 and 1, and needs augment")
        if classes is not None and classes < 2:
            raise UserError(f"classes {classes} must be at least 2; leave it out for a model without classes")
        check_families(augment or [])
        self.augment = list(augment) if augment else None  # the network's shape depends on it, and on the classes
        self.identity_share, self.classes = identity_share, classes
        recipe = (learning_rate, betas, weight_decay, warmup_steps)
        super().__init__(transformer, palette, *recipe, compile, recompute, order, start_from, optimizer, schedule)

    def network(self, config: TransformerConfig) -> TransformerConfig:
        """With a vector for each class and for each transformation."""
        return replace(super().network(config), conditions=len(condition_names(self.augment, self.classes)) or None)

    @property
    def draws(self) -> int:
        """One number a family, and one that takes the class away."""
        return len(self.augment or ()) + (self.classes is not None)

    def check_ready(self) -> None:
        """Also raise a UserError where the images cannot be transformed as asked for."""
        if self.augment and self.stride > 1:
            raise UserError("model.init_args.augment: images of VQ tokens are not transformed; leave it out")
        check_shape(self.augment or [], self.shape)
        super().check_ready()

    def known_transformations(self, device: torch.device) -> Transformations:
        """The tables of `augment`, made once for a device."""
        if self._known is None or self._known.places.device != device:
            self._known = transformations(self.augment or [], self.shape).to(device)
        return self._known

    def conditioned(self, name: str, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """In training transformed images, some without their class; else the images as they are, with their class."""
        images, labels = batch
        if name != "train" or not self.draws:
            return images, self.conditions_of(labels)
        uniform = torch.rand(len(images), self.draws, generator=rng)  # on the CPU: the same whatever the device
        families = self.augment or []
        rows = draw_rows(uniform[:, : len(families)], families, self.identity_share)
        rows = rows.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else rows.to(images.device)
        if self.augment:
            images = transform(images, rows, self.known_transformations(images.device))
        if self.classes is None:
            return images, rows
        hidden = (uniform[:, -1] < WITHOUT_CLASS).to(labels.device)
        told = labels.masked_fill(hidden, NO_LABEL)[:, None]
        return images, torch.cat([told, torch.where(rows < 0, rows, rows + self.classes)], 1)

    def conditions_of(self, labels: Tensor | None) -> Tensor | None:
        """The conditions `(B, 1)` of images as they are, by their labels `(B,)`; None for a model without classes."""
        return None if self.classes is None or labels is None else labels[:, None]

    def surprise(self, tokens: Tensor, seed: int = 0, conditions: Tensor | None = None) -> Tensor:
        """-log p(x_i | x_<i) of every pixel, exact, float32 `(B, T)` in nats, in the order of the sequence.

        Args:
            tokens: int64 `(B, T)`.
            seed: of no use here.
            conditions: as of `PixelTransformer.start`.
        """
        return self.nll(self.transformer(tokens, causal=True, conditions=conditions), tokens)

    def class_nll(self, tokens: Tensor) -> Tensor:
        """-log p(x | c) of tokens `(B, T)` under every class c, float32 `(B, K)` in nats: K passes."""
        labels = torch.arange(self.classes or 0, device=tokens.device)
        under = [self.surprise(tokens, conditions=label.expand(len(tokens), 1)).sum(1) for label in labels]
        return torch.stack(under, 1)

    def nll(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """`surprise` from the network's logits."""
        return pixel_nll(logits, tokens)

    def infill(self, tokens: Tensor, unknown: Tensor, options: SamplingOptions) -> Tensor:
        """In order, each pixel given those before it (`igpt.model.sample`)."""
        return sample(self.transformer, tokens, ~unknown, options)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and what it is the mean of: nats per pixel of every image `(B,)`, with their labels `(B,)`.

        With classes also the accuracy of the class under which an image is likeliest, of the images that have a label.
        """
        images, labels = batch
        tokens, counted = self.encode(images), self.counted(batch_idx, len(images))
        nats = self.surprise(tokens, conditions=self.conditions_of(labels)).mean(1)
        self.log_loss("test", nats.mean(), counted)
        if self.classes is not None:
            labelled = labels != NO_LABEL
            right = (self.class_nll(tokens).argmin(1) == labels).sum() / labelled.sum().clamp(min=1)
            self.log_means({"test/accuracy": right}, int(labelled.sum()) if counted else 0)
        return {"nats": nats, "labels": labels}

    def spec(self) -> dict[str, Any]:
        """As of `GenerativeModule`; what a version before did not know is in it only where it changes something."""
        spec = super().spec()
        for name in ("augment", "identity_share", "classes"):
            if spec["init_args"].get(name) is None:
                spec["init_args"].pop(name, None)
        return spec
