"""What the families that `igpt fit` trains share: images in place of tokens, losses in nats per pixel, bits/dim."""

from abc import abstractmethod
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from igpt.checkpoints import spec_of
from igpt.data import ImageDataModule, Resolution, rng_of, shape_of
from igpt.families.maps import MapSource
from igpt.modules import TRAIN, Batch, RecipeModule
from igpt.system import UserError
from igpt.training import Recipe

VALUES = 256  # of a channel


def gathered(part: Tensor) -> Tensor:
    """The parts `(B, ...)` of all processes after each other, the same in each; of one process its own."""
    if not (dist.is_available() and dist.is_initialized()):
        return part
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class FamilyModule(RecipeModule, MapSource):
    """A source of features that is trained on images uint8 `(B, 3, R, R)`, without a palette.

    All randomness comes from generators that are keyed by step and batch, so that a resumed run repeats it.
    """

    has_palette = False
    classes: int | None = None  # it is told none
    began: dict[str, Any] | None = None  # it begins with nobody's weights

    def __init__(self, resolution: Resolution, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.resolution = resolution
        self.shape = shape_of(resolution)

    @abstractmethod
    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Means over images of what is logged, by name; "loss" is what is trained."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss, logged with what it is made of."""
        rng = rng_of(TRAIN, 0, self.global_step, batch_idx, self.global_rank)
        return self._step("train", batch, rng, len(batch[0]))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, over the validation split, with the same randomness every time."""
        return self._step("val", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As training, over the test split, with the same randomness every time."""
        return self._step("test", batch, self.evaluation_rng(batch_idx), self.counted(batch_idx, len(batch[0])))

    def _step(self, name: str, batch: Batch, rng: torch.Generator, counted: int) -> Tensor:
        values = self.losses(batch[0], rng)
        if self.logs_now:
            self.log_means({f"{name}/{key}": value.detach() for key, value in values.items()}, counted)
        return values["loss"]

    def normal(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Standard normal numbers on the device, the same on every device."""
        return torch.randn(shape, generator=rng).to(self.device)

    def uniform(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Numbers in 0..1 on the device, the same on every device."""
        return torch.rand(shape, generator=rng).to(self.device)

    @torch.no_grad()
    def draw(self, num: int, seed: int) -> Tensor | None:
        """Samples for TensorBoard, of those that have some."""
        return self.sample(num, seed) if num and self.offers("sample") else None

    def check_resolution(self, shape: tuple[int, int]) -> None:
        """Raise a UserError if images of so many rows and columns are not what the network was shaped for."""
        if shape != self.shape:
            given, own = ("x".join(map(str, sides)) for sides in (shape, self.shape))
            raise UserError(
                f"data.init_args.resolution: the images are {given}, but model.init_args.resolution is {own}; make "
                "them equal"
            )

    def check_ready(self) -> None:
        """Do nothing: there is no palette to be missing."""

    def check_colors(self, data: ImageDataModule) -> None:
        """Raise a UserError unless the data are pictures."""
        data.check_pictures()

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data."""
        return spec_of(self, asdict(self.recipe))
