"""The gated PixelCNN (Oord et al. 2016): bytes one by one by masked convolutions, with an exact likelihood."""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution, rng_of
from igpt.families.models.module import VALUES, FamilyModule
from igpt.model import NATS_PER_BIT
from igpt.system import UserError
from igpt.training import Recipe


class InOrder(nn.Module):
    """A convolution over a row's pixels to the left, and of the pixel itself over the channels that come before.

    Channels stand in three groups, red, green, blue: each sees those before it and, if `own`, itself; `times` over.
    """

    seen: Tensor

    def __init__(self, before: int, after: int, kernel: int, own: bool, times: int = 1) -> None:
        super().__init__()
        self.conv, self.kernel = nn.Conv2d(before, after, (1, kernel)), kernel
        given, made = torch.arange(before) * 3 // before, torch.arange(after // times) * 3 // (after // times)
        allowed = given <= made[:, None] if own else given < made[:, None]
        seen = torch.ones(after, before, 1, kernel)
        seen[..., 0, -1] = allowed.repeat(times, 1).float()
        self.register_buffer("seen", seen, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, before, H, W)` to `(B, after, H, W)`."""
        return F.conv2d(F.pad(x, (self.kernel - 1, 0)), self.conv.weight * self.seen, self.conv.bias)


class GatedLayer(nn.Module):
    """A vertical stack, of all rows above, and a horizontal one, of what stands to the left, which takes the first."""

    def __init__(self, before: int, width: int, kernel: int, first: bool) -> None:
        super().__init__()
        self.reach, self.first = kernel // 2, first
        self.vertical = nn.Conv2d(before, 2 * width, (self.reach + 1, kernel))
        self.down = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = InOrder(before, 2 * width, self.reach + 1, not first, times=2)
        self.out = InOrder(width, width, 1, True)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks `(B, width, H, W)`; the vertical one holds a row and those above it."""
        v = self.vertical(F.pad(v, (self.reach, self.reach, self.reach, 0)))
        above = F.pad(v, (0, 0, 1, 0))[:, :, :-1]  # a row's own pixels are no part of what it takes from there
        made = self.out(gate(self.horizontal(h) + self.down(above)))
        return gate(v), made if self.first else made + h


def gate(x: Tensor) -> Tensor:
    """One half of the channels, squashed, as far as the other lets through."""
    return torch.tanh(x.chunk(2, dim=1)[0]) * torch.sigmoid(x.chunk(2, dim=1)[1])


class PixelCNN(FamilyModule):
    """Red, green and blue of each pixel in turn, row by row, each a choice of `levels` values given all before.

    Layers are those of the horizontal stack, as means over positions. The loss is -log p in nats per pixel.

    Args:
        resolution: side of the images, or rows and columns.
        width: channels of a stack; a multiple of 3.
        depth: layers.
        kernel: side of the convolutions; odd.
        levels: values of a channel; below 256 bytes of a level are equally likely. A power of 2.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network.
    """

    exact = True

    def __init__(
        self,
        resolution: Resolution,
        width: int = 48,
        depth: int = 5,
        kernel: int = 3,
        levels: int = VALUES,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        if min(width, depth, kernel) < 1 or width % 3 or kernel % 2 == 0 or levels < 2 or VALUES % levels:
            levels_too = f"and levels a power of 2 up to {VALUES}"
            raise UserError(
                f"model.init_args: width must be a multiple of 3, kernel odd, depth at least 1, {levels_too}"
            )
        self.width, self.depth, self.kernel, self.levels = width, depth, kernel, levels
        self.layers = tuple(f"layer{number}" for number in range(depth))
        self.stack = nn.ModuleList(GatedLayer(width if n else 3, width, kernel, n == 0) for n in range(depth))
        self.head = InOrder(width, 3 * levels, 1, True)

    def stacked(self, values: Tensor) -> list[Tensor]:
        """The horizontal stack behind each layer, of values 0..levels - 1 `(B, 3, H, W)`."""
        found = []
        v = h = 2 * values.float() / (self.levels - 1) - 1
        for layer in self.stack:
            v, h = layer(v, h)
            found.append(h)
        return found

    def logits(self, values: Tensor) -> Tensor:
        """Of each value given those before it, `(B, levels, 3, H, W)`."""
        logits: Tensor = self.head(F.silu(self.stacked(values)[-1])).float()
        split: Tensor = logits.unflatten(1, (3, self.levels)).transpose(1, 2)
        return split

    def log_p(self, images: Tensor) -> Tensor:
        """Log p `(B,)` of the bytes of images, exact."""
        values = images.to(self.device).long() * self.levels // VALUES
        nats = F.cross_entropy(self.logits(values), values, reduction="none").flatten(1)
        return -(nats + math.log(VALUES // self.levels)).sum(1)

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The loss in nats per pixel, and in bits/dim."""
        loss = -self.log_p(images).mean() / math.prod(self.shape)
        return {"loss": loss, "bits_per_dim": loss / 3 / NATS_PER_BIT}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found = self.stacked(images.to(self.device).long() * self.levels // VALUES)
        return [found[self.layers.index(name)] for name in layers]

    @torch.no_grad()
    def log_likelihood(self, images: Tensor) -> Tensor:
        """See `FeatureSource`."""
        return self.log_p(images)

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """See `FeatureSource`; a pass over the rows so far for every value, and a level's bytes drawn evenly."""
        values, rng = torch.zeros(num, 3, *self.shape, dtype=torch.long, device=self.device), rng_of(seed)
        for row, column, channel in product(*map(range, self.shape), range(3)):
            shares = self.logits(values[:, :, : row + 1])[:, :, channel, row, column].softmax(1)
            values[:, channel, row, column] = torch.multinomial(shares.cpu(), 1, generator=rng)[:, 0].to(self.device)
        step = VALUES // self.levels
        return (values * step + (self.uniform(tuple(values.shape), rng) * step).long()).to(torch.uint8)
