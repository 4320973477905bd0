"""CPC (van den Oord et al. 2018): the upper rows of a picture are to tell which patches stand some rows below."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution
from igpt.families.models.module import FamilyModule
from igpt.system import UserError
from igpt.training import Recipe

STAGES = ("stem", "stage1", "stage2", "stage3")


def info_nce(scores: Tensor) -> Tensor:
    """Cross-entropy in nats of finding each row's own column of scores `(N, N)` among all (the paper's equation 4)."""
    return F.cross_entropy(scores.float(), torch.arange(len(scores), device=scores.device))


class RowsAbove(nn.Module):
    """Adds to each position of `x (B, D, H, W)` what stands beside it in its own row and in the one above."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (2, 3))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        added: Tensor = self.out(F.relu(self.conv(F.pad(F.relu(x), (1, 1, 1, 0)))))
        return x + added


class CPC(FamilyModule):
    """A small ResNet sees each patch of an overlapping grid alone; causal convolutions over its rows make a context.

    From the context at a row, a linear map for each distance predicts the patch so many rows below in its column, which
    is to be told from all that are predicted at that distance in the batch. Layers are stem and stages, each as the
    mean over a patch, and the context, which at a row knows nothing of rows below it. Norms are of a patch by itself:
    the paper's network has none over a batch. A likelihood and samples it has none.

    Args:
        resolution: side of the images, or rows and columns; a patch and a multiple of the stride.
        patch: side of a patch.
        stride: from one patch to the next; below the side, patches overlap.
        width: channels of the stem; 4 times as many are a patch's code.
        depth: causal convolutions, each of which sees one row more.
        nearest: how many rows below the first that is predicted lies; patch / stride shares no pixel with the context.
        farthest: and the last one.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network, or a grid without a row so far below.
    """

    def __init__(
        self,
        resolution: Resolution,
        patch: int = 8,
        stride: int = 4,
        width: int = 64,
        depth: int = 3,
        nearest: int = 2,
        farthest: int = 4,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        over = [side - patch for side in self.shape]
        if min(patch, stride, width, depth, 1 + min(over)) < 1 or any(side % stride for side in over):
            raise UserError(
                "model.init_args: sizes must be at least 1, and resolution a patch and a multiple of the stride"
            )
        rows = over[0] // stride + 1
        if not 1 <= nearest <= farthest < rows:
            raise UserError(
                f"model.init_args: nearest and farthest must be in 1..{rows - 1}, as there are {rows} rows of patches"
            )
        self.patch, self.stride, self.width, self.depth = patch, stride, width, depth
        self.nearest, self.farthest = nearest, farthest
        self.layers = (*STAGES, "context")
        self.network = encoder(width)
        self.context = nn.Sequential(*(RowsAbove(4 * width) for _ in range(depth)))
        self.predictions = nn.ModuleList(
            nn.Conv2d(4 * width, 4 * width, 1, bias=False) for _ in range(nearest, farthest + 1)
        )

    def patches(self, images: Tensor) -> Tensor:
        """Patches `(B, H, W, 3, P, P)` in -1..1 of images uint8 `(B, 3, R, R)`, in rows and columns of the grid."""
        pictures = images.to(self.device).float() / 127.5 - 1
        return pictures.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride).permute(0, 2, 3, 1, 4, 5)

    def stages(self, images: Tensor) -> list[Tensor]:
        """What each layer says of each patch, `(B, D, H, W)`."""
        patches = self.patches(images)
        found, maps = [], patches.flatten(0, 2)
        for part in self.network.values():
            maps = part(maps)
            found.append(maps.mean((2, 3)).view(*patches.shape[:3], -1).permute(0, 3, 1, 2))
        return [*found, self.context(found[-1])]

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE in nats a patch, mean over distances, and the share of patches whose own prediction says best."""
        *_, codes, context = self.stages(images)
        losses, found = [], []
        for below, predict in enumerate(self.predictions, self.nearest):
            wanted, predicted = (
                part.permute(0, 2, 3, 1).flatten(0, 2)
                for part in (codes[:, :, below:], predict(context[:, :, :-below]))
            )
            scores = predicted @ wanted.T / math.sqrt(wanted.shape[1])  # near 1 at the start
            losses.append(info_nce(scores))
            found.append((scores.argmax(1) == torch.arange(len(scores), device=scores.device)).float().mean())
        return {"loss": torch.stack(losses).mean(), "found": torch.stack(found).mean()}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found = self.stages(images)
        return [found[self.layers.index(name)] for name in layers]


def encoder(width: int) -> nn.ModuleDict:
    """Stem and stages, of one block each, of a ResNet whose stem has so many channels and whose norms see one patch."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # takes a second, which few commands need

    norm = partial(nn.GroupNorm, 1)

    def stage(before: int, after: int, stride: int) -> nn.Module:
        short = nn.Sequential(conv1x1(before, after, stride), norm(after)) if before != after else None
        block: nn.Module = BasicBlock(before, after, stride, short, norm_layer=norm)
        return block

    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
    parts = [stem, stage(width, width, 1), stage(width, 2 * width, 2), stage(2 * width, 4 * width, 2)]
    return nn.ModuleDict(dict(zip(STAGES, parts, strict=True)))
