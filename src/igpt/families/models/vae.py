"""A convolutional variational autoencoder (Kingma & Welling 2014), whose ELBO is of the images' bytes."""

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

MEAN = "mean"  # the layer behind the convolutions
BOUND = 8.0  # of logarithms of deviations, which lose their numbers beyond


class VAE(FamilyModule):
    """Convolutions that halve the side, a normal latent, and a decoder of logistics cut into 256 values.

    Layers are the encoder's convolutions, conv0 to conv(depth - 1), each as the mean over positions, and the mean of
    the posterior. The loss is reconstruction plus beta times the divergence, in nats per pixel, and `bits_per_dim` the
    ELBO itself.

    Args:
        resolution: side of the images, or rows and columns; a multiple of 2^(depth - 1).
        width: channels of the first convolution; each one doubles them.
        depth: convolutions of the encoder; all but the first halve the side.
        latent: numbers in the latent.
        beta: weight of the divergence (Higgins et al. 2017); 1 is the ELBO.
        free_bits: nats of a latent's divergence, a mean over the batch, that it costs at least (Kingma et al. 2016).
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
        width: int = 32,
        depth: int = 3,
        latent: int = 32,
        beta: float = 1.0,
        free_bits: float = 0.0,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        if min(width, depth, latent) < 1 or any(side % 2 ** (depth - 1) for side in self.shape):
            raise UserError(
                "model.init_args: width, depth and latent must be at least 1, and resolution a multiple of "
                f"2^(depth - 1) = {2 ** (depth - 1)}"
            )
        if not 0 <= beta < math.inf or not 0 <= free_bits < math.inf:
            raise UserError("model.init_args: beta and free_bits must be numbers of at least 0")
        self.width, self.depth, self.latent, self.beta, self.free_bits = width, depth, latent, beta, free_bits
        self.layers = (*(f"conv{number}" for number in range(depth)), MEAN)
        widths = [width * 2**number for number in range(depth)]
        self.smallest = widths[-1], *(side // 2 ** (depth - 1) for side in self.shape)
        size = math.prod(self.smallest)
        self.encoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 if number == 0 else 2, padding=1)
            for number, (before, after) in enumerate(zip([3, *widths], widths, strict=False))
        )
        self.posterior = nn.Linear(size, 2 * latent)
        self.expand = nn.Linear(latent, size)
        self.decoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(widths[::-1], [*widths[-2::-1], 3], strict=True)
        )
        self.log_scale = nn.Parameter(torch.full((3, 1, 1), -2.0))

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Maps behind each convolution `(B, C, H, W)`, and mean and log deviation of the posterior `(B, latent)`."""
        found, maps = [], images.to(self.device).float() / 127.5 - 1
        for part in self.encoder:
            maps = F.silu(part(maps))
            found.append(maps)
        mean, log_deviation = self.posterior(maps.flatten(1)).chunk(2, dim=1)
        return found, mean, log_deviation.clamp(-BOUND, BOUND)

    def decode(self, latents: Tensor) -> Tensor:
        """Where the logistics of the bytes lie, `(B, 3, R, R)` in about -1..1, of latents `(B, latent)`."""
        maps = F.silu(self.expand(latents)).unflatten(1, self.smallest)
        for part in self.decoder[:-1]:
            maps = F.silu(part(F.interpolate(maps, scale_factor=2.0, mode="nearest")))
        located: Tensor = self.decoder[-1](maps)
        return located

    def log_p(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x | z) `(B,)` of images uint8: the mass of each byte's bin of a logistic; outer bins are open."""
        x = images.to(self.device).float()
        centred = (x / 127.5 - 1 - self.decode(latents)) * torch.exp(-self.log_scale)
        half = torch.exp(-self.log_scale) / (VALUES - 1)
        upper, lower = centred + half, centred - half
        inside = upper - F.softplus(upper) - F.softplus(lower) + torch.log(-torch.expm1(-2 * half))
        nats = torch.where(x == 0, F.logsigmoid(upper), torch.where(x == VALUES - 1, F.logsigmoid(-lower), inside))
        return nats.flatten(1).sum(1)

    def bound(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Log p(x | z) `(B,)` at one draw of the posterior, and the divergence of each latent `(B, latent)`."""
        _, mean, log_deviation = self.encode(images)
        latents = mean + log_deviation.exp() * self.normal(tuple(mean.shape), rng)
        divergence = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation
        return self.log_p(images, latents), divergence

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The loss, its two parts and the ELBO, all but the last in nats per pixel."""
        nats, divergence = self.bound(images, rng)
        pixels, rebuilt, apart = math.prod(self.shape), -nats.mean(), divergence.mean(0)
        loss = (rebuilt + self.beta * apart.clamp(min=self.free_bits).sum()) / pixels
        parts = {"reconstruction": rebuilt / pixels, "divergence": apart.sum() / pixels}
        return {"loss": loss, **parts, "bits_per_dim": (rebuilt + apart.sum()) / pixels / 3 / NATS_PER_BIT}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found, mean, _ = self.encode(images)
        known = dict(zip(self.layers, [*found, mean], strict=True))
        return [known[name] for name in layers]

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, draws: int = 64, seed: int = 0) -> Tensor:
        """A lower bound of log p(x) in nats `(B,)`, tighter with more draws of the posterior (Burda et al. 2016)."""
        _, mean, log_deviation = self.encode(images)
        weights, rng = [], rng_of(seed)
        for _ in range(draws):
            noise = self.normal(tuple(mean.shape), rng)
            latents = mean + log_deviation.exp() * noise
            ratio = 0.5 * (noise.square() - latents.square()) + log_deviation  # of prior to posterior
            weights.append(self.log_p(images, latents) + ratio.sum(1))
        return torch.stack(weights).logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """See `FeatureSource`: bytes drawn from the logistics of latents from the prior."""
        rng = rng_of(seed)
        located = self.decode(self.normal((num, self.latent), rng))
        noise = torch.logit(self.uniform(tuple(located.shape), rng), eps=1e-6)
        drawn = (located + self.log_scale.exp() * noise + 1) * 127.5
        return drawn.round().clamp(0, VALUES - 1).to(torch.uint8)
