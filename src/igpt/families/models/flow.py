"""A normalising flow of coupling layers: RealNVP (Dinh et al. 2017), and NICE (2014) as its additive form."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution, rng_of
from igpt.families.models.module import VALUES, FamilyModule
from igpt.model import NATS_PER_BIT
from igpt.system import UserError
from igpt.training import Recipe

EDGE, LARGEST = 0.05, 2.0  # of 0..1 kept from the ends before the logit, and of the logarithm of a scale


class Coupling(nn.Module):
    """Shifts and scales the second half of the channels by what a small network says of the first."""

    def __init__(self, channels: int, hidden: int, additive: bool) -> None:
        super().__init__()
        self.additive = additive
        self.network = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1), nn.SiLU(), nn.Conv2d(hidden, hidden, 1), nn.SiLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
        )  # fmt: skip
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)  # it begins as the identity

    def _shift_and_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self.network(kept).chunk(2, dim=1)
        return shift, torch.zeros_like(scale) if self.additive else LARGEST * torch.tanh(scale / LARGEST)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The other side of `x (B, C, H, W)`, and the logarithm of the determinant `(B,)`."""
        kept, changed = x.chunk(2, dim=1)
        shift, scale = self._shift_and_scale(kept)
        return torch.cat([kept, changed * scale.exp() + shift], 1), scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        kept, changed = y.chunk(2, dim=1)
        shift, scale = self._shift_and_scale(kept)
        return torch.cat([kept, (changed - shift) * torch.exp(-scale)], 1)


class Flow(FamilyModule):
    """Coupling layers at several scales: each squeezes 2x2 pixels into channels, and half of them are then finished.

    Channels are turned round between couplings, so that halves take turns. Layers are couplings, scale0.0 and so on:
    means over positions. The loss is -log p of dequantised bytes in nats per pixel, whose mean is at least theirs.

    Args:
        resolution: side of the images, or rows and columns; a multiple of 2^scales.
        scales: how often pixels are squeezed.
        couplings: at each scale.
        hidden: channels of the couplings' networks.
        additive: shift only, as NICE.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network.
    """

    def __init__(
        self,
        resolution: Resolution,
        scales: int = 2,
        couplings: int = 4,
        hidden: int = 64,
        additive: bool = False,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        if min(scales, couplings, hidden) < 1 or any(side % 2**scales for side in self.shape):
            raise UserError(f"model.init_args: sizes must be at least 1, and resolution a multiple of {2**scales}")
        self.scales, self.couplings, self.hidden, self.additive = scales, couplings, hidden, additive
        self.layers = tuple(f"scale{scale}.{number}" for scale in range(scales) for number in range(couplings))
        scaled = (nn.ModuleList(self.step(12 * 2**one) for _ in range(couplings)) for one in range(scales))
        self.blocks = nn.ModuleList(scaled)

    def step(self, channels: int) -> nn.Module:
        """A coupling."""
        return Coupling(channels, self.hidden, self.additive)

    def transform(self, x: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """From `x (B, 3, H, W)` to the latent's parts, the log-determinant `(B,)`, and what each coupling gives."""
        finished, seen, total = [], [], x.new_zeros(len(x))
        for scale, block in enumerate(self.blocks):
            x = F.pixel_unshuffle(x, 2)
            for coupling in block.children():
                x, added = coupling(x.flip(1))
                total = total + added
                seen.append(x)
            if scale < self.scales - 1:
                x, done = x.chunk(2, dim=1)
                finished.append(done)
        return [*finished, x], total, seen

    def inverse(self, parts: Sequence[Tensor]) -> Tensor:
        """From the parts of a latent back to `x (B, 3, H, W)`."""
        *finished, x = parts
        for scale in reversed(range(self.scales)):
            if scale < self.scales - 1:
                x = torch.cat([x, finished[scale]], 1)
            for coupling in reversed(list(self.blocks[scale].children())):
                x = coupling.inverse(x).flip(1)  # type: ignore[operator]
            x = F.pixel_shuffle(x, 2)
        return x

    def log_density(self, images: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Log p `(B,)` at bytes plus noise of 0..1, and what each coupling gives; over bins of size 1 it is a mass."""
        share = EDGE + (1 - 2 * EDGE) * (images.to(self.device).float() + noise) / VALUES
        slope = math.log((1 - 2 * EDGE) / VALUES) - torch.log(share) - torch.log1p(-share)
        parts, total, seen = self.transform(torch.logit(share))
        normal = -0.5 * (torch.cat([part.flatten(1) for part in parts], 1).square() + math.log(2 * math.pi))
        return normal.sum(1) + total + slope.flatten(1).sum(1), seen

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The loss in nats per pixel, and in bits/dim."""
        loss = -self.log_density(images, self.uniform(tuple(images.shape), rng))[0].mean() / math.prod(self.shape)
        return {"loss": loss, "bits_per_dim": loss / 3 / NATS_PER_BIT}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`; bytes stand in the middle of their bins."""
        _, seen = self.log_density(images, torch.full((), 0.5, device=self.device))
        return [seen[self.layers.index(name)] for name in layers]

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, draws: int = 16, seed: int = 0) -> Tensor:
        """Log of the mean density over each bin, in nats `(B,)`: with more draws it rises to the mass of the bytes."""
        rng = rng_of(seed)
        found = [self.log_density(images, self.uniform(tuple(images.shape), rng))[0] for _ in range(draws)]
        return torch.stack(found).logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """See `FeatureSource`."""
        sizes = [(6 * 2**one, self.shape[0] >> one + 1, self.shape[1] >> one + 1) for one in range(self.scales)]
        sizes[-1], rng = (2 * sizes[-1][0], *sizes[-1][1:]), rng_of(seed)
        share = torch.sigmoid(self.inverse([self.normal((num, *size), rng) for size in sizes]))
        return ((share - EDGE) / (1 - 2 * EDGE) * VALUES).floor().clamp(0, VALUES - 1).to(torch.uint8)
