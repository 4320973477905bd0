"""Networks of torchvision as a FeatureSource, with the weights of a file: `--source torchvision:resnet18`."""

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from igpt.checkpoints import check_finite
from igpt.families.maps import MapSource
from igpt.system import UserError, last_line

RANDOM = "random"  # in place of a file: the weights that the network begins with
SEED = 0  # of these
MEAN, DEVIATION = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet's colours, which torchvision's weights take
RESNET = {"stem": "maxpool", "stage1": "layer1", "stage2": "layer2", "stage3": "layer3", "stage4": "layer4"}


class TorchVisionSource(MapSource):
    """Features behind every stage of a convolutional classifier of torchvision, each the mean over positions.

    Stages are those of a ResNet, or the parts of `features` of another network. Pictures keep their size: the stem of a
    ResNet leaves a quarter of the side.

    Args:
        name: of the network, as torchvision calls it, such as resnet18.
        weights: file of a state dict, which is read as tensors alone; "random" for weights that were never trained.

    Raises:
        UserError: no such network, no weights are named, or they do not fit.
    """

    def __init__(self, name: str = "", weights: str | None = None) -> None:
        super().__init__()
        option = f"--source torchvision:{name}"
        if name not in (known := models.list_models(models)):
            raise UserError(f"{option}: torchvision has no such network; give one such as {', '.join(near(known))}")
        if weights is None:
            raise UserError(f"{option} needs --weights FILE, a state dict's, or --weights {RANDOM} for untrained ones")
        self.name, self.weights = name, weights
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a network's way to begin will change
            torch.manual_seed(SEED)
            self.network: nn.Module = models.get_model(name, weights=None).eval()
        self.stages = dict(stages_of(self.network))
        if not self.stages:
            raise UserError(f"{option} has no convolutional stages that igpt knows; give one such as resnet50")
        self.layers = tuple(self.stages)
        if weights != RANDOM:
            load_weights(self.network, weights)

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found: dict[str, Tensor] = {}
        parts = {name: self.network.get_submodule(self.stages[name]) for name in layers}
        hooks = [part.register_forward_hook(partial(keep, found, name)) for name, part in parts.items()]
        mean, deviation = (torch.tensor(one, device=images.device)[:, None, None] for one in (MEAN, DEVIATION))
        try:
            self.network((images / 255 - mean) / deviation)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[name] for name in layers]


def near(known: list[str]) -> list[str]:
    """A few of the names."""
    return [name for name in known if name.startswith("resnet")]


def stages_of(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a network's stages, each with that of the module whose output it is."""
    if isinstance(network, models.ResNet):
        yield from RESNET.items()
        return
    parts = getattr(network, "features", None)
    if isinstance(parts, nn.Sequential) and not isinstance(network, models.SwinTransformer):  # its channels stand last
        yield from ((f"features.{name}", f"features.{name}") for name, _ in parts.named_children())


def keep(found: dict[str, Tensor], name: str, part: nn.Module, given: Any, maps: Tensor) -> None:
    """A hook: keep maps `(B, D, H, W)`, as they are now: what follows may write into them."""
    found[name] = maps.float().clone()


def load_weights(network: nn.Module, path: str) -> None:
    """Load a state dict's file, of which nothing is executed; a UserError where it is none, or of another network."""
    if not Path(path).is_file():
        raise UserError(f"--weights {path} does not exist; give the file of a state dict, or {RANDOM}")
    try:
        named = path.endswith(".safetensors")
        state = load_file(path) if named else torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # on foreign bytes torch raises anything
        raise UserError(f"--weights {path} is no state dict of this network ({last_line(error)[:200]})") from error
    check_finite(state.items(), f"--weights {path}")
