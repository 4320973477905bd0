"""Glow (Kingma & Dhariwal 2018): the flow with learned 1x1 convolutions between its couplings, by normflows."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from igpt.data import Resolution
from igpt.families.models.flow import Flow
from igpt.families.models.module import gathered
from igpt.modules import Batch
from igpt.system import library


class GlowStep(nn.Module):
    """What a GlowBlock of normflows is made of, turned round, as that leads from the latent to the picture.

    Its activation norm begins as the identity; while `fitting`, it is set so that it gives means 0 and deviations 1.
    """

    def __init__(self, channels: int, hidden: int, additive: bool) -> None:
        super().__init__()
        flows = library("normflows.flows", "families", "model igpt.families.Glow")
        half = channels // 2
        sizes = (half, hidden, hidden, half if additive else 2 * half)
        network = library("normflows.nets", "families", "model igpt.families.Glow").ConvNet2d(sizes, (3, 1, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.lu, by which it begins, has another name
            mixing = flows.Invertible1x1Conv(channels, use_lu=True)
        with torch.device("cpu"):  # it looks at numbers, which a sketch without memory has not
            norm = flows.ActNorm((channels, 1, 1))
        self.parts = nn.ModuleList([flows.AffineCouplingBlock(network, not additive, "sigmoid"), mixing, norm])
        self.fitting = False
        self._set_fitted(True)

    def _set_fitted(self, done: bool) -> None:
        norm: Any = self.parts[-1]
        norm.data_dep_init_done = torch.full((), float(done), device=norm.s.device)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The other side of `x (B, C, H, W)`, and the logarithm of the determinant `(B,)`."""
        if self.fitting:
            self._set_fitted(False)
        total = x.new_zeros(len(x))
        for part in reversed(list(self.parts)):
            x, added = part.inverse(x)  # type: ignore[operator]
            total = total + added
        if self.fitting:
            self._set_fitted(True)  # in place of the library's own mark, which lies on the processor
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        for part in self.parts:
            y = part(y)[0]
        return y


class Glow(Flow):
    """The scales, density, samples and layers of `Flow`, whose steps are blocks of activation norm, 1x1 convolution and
    coupling.

    The norms are fitted to the first batch of a training, of all its processes together.

    Args:
        resolution: side of the images, or rows and columns; a multiple of 2^scales.
        scales: how often pixels are squeezed.
        couplings: blocks at each scale.
        hidden: channels of the couplings' networks.
        additive: shift only.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network, or normflows is not installed.
    """

    begun: Tensor

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
        flow = (scales, couplings, hidden, additive)
        super().__init__(resolution, *flow, learning_rate, betas, weight_decay, warmup_steps)
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def step(self, channels: int) -> nn.Module:
        """A block of so many channels."""
        return GlowStep(channels, self.hidden, self.additive)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As every family's; the very first one fits the norms before."""
        if not self.begun:
            self.fit_norms(gathered(batch[0]))
            self.begun.fill_(True)
        return super().training_step(batch, batch_idx)

    @torch.no_grad()
    def fit_norms(self, images: Tensor) -> None:
        """Fit every norm to images uint8 `(B, 3, R, R)`, from the first to the last."""
        steps = [part for part in self.modules() if isinstance(part, GlowStep)]
        for step in steps:
            step.fitting = True
        self.log_density(images, torch.full((), 0.5, device=self.device))
        for step in steps:
            step.fitting = False
