"""SimCLR (Chen et al. 2020): two views of a picture are to be nearer to each other than to those of all others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution
from igpt.families.maps import mean_of
from igpt.families.models.module import FamilyModule
from igpt.system import UserError
from igpt.training import Recipe

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross-entropy of views `(B, D)` and `(B, D)` of the same images, in nats.

    Each of the 2B views is classified among the other 2B - 1, by cosine over temperature; its twin is the class.
    """
    views = F.normalize(torch.cat([one, other]).float(), dim=1)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    twins = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(logits, twins)


class SimCLR(FamilyModule):
    """A ResNet-18 of torchvision with a 3x3 stem for small pictures, and two layers that are used in training alone.

    Views are crops of any place and size, mirrored where asked, of another brightness and contrast. Layers are the stem
    and the four stages, each as the mean over positions. A likelihood and samples it has none.

    Args:
        resolution: side of the images, or rows and columns.
        width: channels of the stem; 64 in torchvision's.
        projection: numbers of a view that are compared.
        temperature: of the loss.
        smallest_crop: share of a side that a crop has at least.
        jitter: brightness and contrast are multiplied by 1 - jitter to 1 + jitter.
        mirror: mirror half of the views; off for digits and letters.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network or views.
    """

    def __init__(
        self,
        resolution: Resolution,
        width: int = 64,
        projection: int = 64,
        temperature: float = 0.2,
        smallest_crop: float = 0.6,
        jitter: float = 0.4,
        mirror: bool = True,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        if min(width, projection) < 1 or not 0 < smallest_crop <= 1 or not 0 <= jitter < 1 or not temperature > 0:
            raise UserError(
                "model.init_args: width and projection must be at least 1, temperature above 0, smallest_crop in 0..1 "
                "and jitter below 1"
            )
        self.width, self.projection, self.temperature = width, projection, temperature
        self.smallest_crop, self.jitter, self.mirror = smallest_crop, jitter, mirror
        self.layers = STAGES
        self.network = resnet(width)
        size = width * 8
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, projection))

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Maps behind the stem and each stage, of pictures `(B, 3, R, R)` in -1..1."""
        found, maps = [], pictures
        for part in self.network.values():
            maps = part(maps)
            found.append(maps)
        return found

    def view(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A view of each image uint8 `(B, 3, R, R)`, `(B, 3, R, R)` in about -1..1; all is drawn from `rng`."""
        count, pictures = len(images), images.to(self.device).float() / 127.5 - 1
        size, left, up, flip, bright, contrast = self.uniform((6, count), rng)
        size = self.smallest_crop + (1 - self.smallest_crop) * size
        across = torch.where(flip < 0.5, -size, size) if self.mirror else size
        none = torch.zeros_like(size)
        rows = [across, none, (1 - size) * (2 * left - 1), none, size, (1 - size) * (2 * up - 1)]
        places = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pictures.shape), align_corners=False)
        crops = F.grid_sample(pictures, places, padding_mode="border", align_corners=False)
        shift, scale = (self.jitter * (2 * one - 1)[:, None, None, None] for one in (bright, contrast))
        mean = crops.mean((1, 2, 3), keepdim=True)
        seen: Tensor = (crops - mean) * (1 + scale) + mean + shift
        return seen

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """NT-Xent in nats a view, and the share of views whose nearest is their twin, the chance being 1 / (2B - 1)."""
        both = torch.cat([self.view(images, rng), self.view(images, rng)])
        one, other = self.head(mean_of(self.stages(both)[-1])).chunk(2)
        return {"loss": nt_xent(one, other, self.temperature), "twins": twins_found(one.detach(), other.detach())}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found = self.stages(images.to(self.device).float() / 127.5 - 1)
        return [found[STAGES.index(name)] for name in layers]


def twins_found(one: Tensor, other: Tensor) -> Tensor:
    """Share of the views `(B, D)` and `(B, D)` whose nearest by cosine is the other view of their image."""
    views = F.normalize(torch.cat([one, other]).float(), dim=1)
    nearest = (views @ views.T).fill_diagonal_(-torch.inf).argmax(1)
    return (nearest == torch.arange(len(views), device=views.device).roll(len(one))).float().mean()


def resnet(width: int) -> nn.ModuleDict:
    """Stem and stages of a ResNet-18 whose stem, 3x3 without a pool, has so many channels."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # takes a second, which few commands need

    def stage(before: int, after: int, stride: int) -> nn.Sequential:
        short = None
        if stride != 1 or before != after:
            short = nn.Sequential(conv1x1(before, after, stride), nn.BatchNorm2d(after))
        return nn.Sequential(BasicBlock(before, after, stride, short), BasicBlock(after, after))

    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    widths = [width * 2**number for number in range(4)]
    stages = [stage(*two, 1 if two[0] == two[1] else 2) for two in zip([width, *widths], widths, strict=False)]
    return nn.ModuleDict(dict(zip(STAGES, [stem, *stages], strict=True)))
