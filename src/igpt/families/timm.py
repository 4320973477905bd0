"""Networks of timm as a FeatureSource, with the weights of a file: `--source timm:convnext_atto`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igpt.families.maps import MapSource
from igpt.families.pretrained import RANDOM, SEED, load_weights
from igpt.families.views import normed, sized
from igpt.system import UserError, library


class TimmSource(MapSource):
    """Features behind every stage of a network of timm, or every block of a transformer, each the mean over positions.

    They are those of timm's `forward_intermediates`, without class tokens. Colours are normed as the network's
    configuration says. Pictures keep their size, unless the network takes one size alone: then they are resized to it.

    Args:
        name: of the network, as timm calls it, such as resnet18.
        weights: file of a state dict, by torch or safetensors; "random" for weights that were never trained. Nothing is
            downloaded.

    Raises:
        UserError: timm is not installed or has no such network, no weights are named, or they do not fit.
    """

    def __init__(self, name: str = "", weights: str | None = None) -> None:
        super().__init__()
        option = f"--source timm:{name}"
        timm = library("timm", "families", option)
        if not timm.is_model(name):
            raise UserError(f"{option}: timm has no such network; give one such as resnet18, or see timm.list_models()")
        if weights is None:
            raise UserError(f"{option} needs --weights FILE, a state dict's, or --weights {RANDOM} for untrained ones")
        self.name, self.weights = name, weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.network: Any = timm.create_model(name, pretrained=False).eval()
        self.layers = tuple(str(stage["module"]) for stage in stages_of(self.network, option))
        about = self.network.pretrained_cfg
        self.colors = tuple(about["mean"]), tuple(about["std"])
        self.side = tuple(about["input_size"][1:]) if about.get("fixed_input_size") else None
        if weights != RANDOM:
            load_weights(self.network, str(Path(weights)))

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        pictures = normed(sized(images, self.side), *self.colors)
        wanted = sorted({self.layers.index(name) for name in layers})
        maps = self.network.forward_intermediates(pictures, indices=wanted, intermediates_only=True)
        found = dict(zip(wanted, maps, strict=True))
        return [found[self.layers.index(name)] for name in layers]


def stages_of(network: nn.Module, option: str) -> list[dict[str, Any]]:
    """What timm says of a network's stages; a UserError where it gives none of them."""
    stages = list(getattr(network, "feature_info", []))
    if not stages or not hasattr(network, "forward_intermediates"):
        raise UserError(f"{option}: timm gives no features of its stages; give another, such as resnet18")
    return stages
