"""A masked autoencoder (He et al. 2022): a transformer sees a quarter of a picture's patches, and paints the others."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from igpt.data import Resolution
from igpt.families.models.module import FamilyModule
from igpt.system import UserError, library
from igpt.training import Recipe


class MAE(FamilyModule):
    """Blocks of timm over the patches that are left, and a small decoder over all of them.

    Layers are the embedding and the encoder's blocks, each as the mean over patches, none of which is masked then.
    The loss is the squared error of the masked patches, whose values are -1..1, or normed by patch. A likelihood and
    samples it has none.

    Args:
        resolution: side of the images, or rows and columns; a multiple of patch.
        patch: side of a patch.
        width: of the encoder; a multiple of 4 and of heads.
        depth: blocks of the encoder.
        heads: of a block's attention, in encoder and decoder.
        decoder_width: a multiple of 4 and of heads.
        decoder_depth: blocks of the decoder.
        masked: share of the patches that the encoder does not see.
        norm_patches: paint patches less their mean and over their deviation.
        learning_rate: peak learning rate of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.

    Raises:
        UserError: a number that describes no such network, or timm is not installed.
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(
        self,
        resolution: Resolution,
        patch: int = 4,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        decoder_width: int = 64,
        decoder_depth: int = 2,
        masked: float = 0.75,
        norm_patches: bool = False,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__(resolution, Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        least = min(patch, width, depth, heads, decoder_width, decoder_depth)
        if least < 1 or any(side % patch for side in self.shape):
            raise UserError("model.init_args: sizes must be at least 1, and resolution a multiple of patch")
        if any(one % number for one in (width, decoder_width) for number in (4, heads)):
            raise UserError("model.init_args: width and decoder_width must be multiples of 4 and of heads")
        grid = self.shape[0] // patch, self.shape[1] // patch
        self.seen = math.prod(grid) - round(masked * math.prod(grid)) if 0 < masked < 1 else 0
        if not 0 < self.seen < math.prod(grid):
            raise UserError(f"model.init_args.masked: of {math.prod(grid)} patches some must be masked, and some not")
        self.patch, self.width, self.depth, self.heads, self.masked = patch, width, depth, heads, masked
        self.decoder_width, self.decoder_depth, self.norm_patches = decoder_width, decoder_depth, norm_patches
        self.layers = ("patches", *(f"block{number}" for number in range(depth)))
        kind = library("timm.models.vision_transformer", "families", "model igpt.families.MAE").Block
        self.embed, self.norm = nn.Linear(3 * patch**2, width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(kind(width, heads, qkv_bias=True) for _ in range(depth))
        self.narrow, self.hole = nn.Linear(width, decoder_width), nn.Parameter(torch.zeros(decoder_width))
        self.decoder = nn.Sequential(*(kind(decoder_width, heads, qkv_bias=True) for _ in range(decoder_depth)))
        self.paint = nn.Sequential(nn.LayerNorm(decoder_width), nn.Linear(decoder_width, 3 * patch**2))
        self.register_buffer("positions", waves(grid, width), persistent=False)
        self.register_buffer("decoder_positions", waves(grid, decoder_width), persistent=False)

    def patches(self, images: Tensor) -> Tensor:
        """Values -1..1 of patches `(B, N, 3 * patch^2)` of images uint8, row by row."""
        pictures = images.to(self.device).float() / 127.5 - 1
        return F.pixel_unshuffle(pictures, self.patch).flatten(2).transpose(1, 2)

    def predicted(self, patches: Tensor, order: Tensor) -> Tensor:
        """What is painted at each patch `(B, N, 3 * patch^2)`, of those that stand first in `order (B, N)` alone."""
        shown = order[:, : self.seen, None]
        x = (self.embed(patches) + self.positions).gather(1, shown.expand(-1, -1, self.width))
        for block in self.blocks:
            x = block(x)
        x = self.narrow(self.norm(x))
        whole = self.hole.to(x.dtype).expand(len(x), order.shape[1], -1)
        whole = whole.scatter(1, shown.expand(-1, -1, self.decoder_width), x)
        painted: Tensor = self.paint(self.decoder(whole + self.decoder_positions))
        return painted

    def losses(self, images: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error of the values of masked patches."""
        patches = self.patches(images)
        order = self.uniform((len(patches), patches.shape[1]), rng).argsort(1)
        wanted = patches
        if self.norm_patches:
            wanted = F.layer_norm(patches, patches.shape[-1:], eps=1e-6)
        errors = (self.predicted(patches, order).float() - wanted).square().mean(2)
        return {"loss": errors.gather(1, order[:, self.seen :]).mean()}

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        x = self.embed(self.patches(images)) + self.positions
        found = [x]
        for block in self.blocks:
            found.append(block(found[-1]))
        return [found[self.layers.index(name)] for name in layers]


def waves(grid: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines `(rows * columns, width)` of a grid's places: half for the row, half for the column."""
    rates = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(float(side)) for side in grid), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
