"""Pictures in, features out: a space of features, and folders of pictures of any other model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.data import open_rgb, picture_suffixes
from igpt.families import LoadedSource, open_subject
from igpt.modules import Loaded
from igpt.system import UserError

BATCH = 128
FEWEST = 10  # pictures that a figure is made of


@dataclass(frozen=True)
class Space:
    """One layer of a source of features."""

    source: str
    loaded: Loaded | LoadedSource
    layer: int
    name: str

    def features(self, images: Tensor) -> Tensor:
        """Features float32 `(N, D)` on the CPU of images uint8 `(N, 3, R, R)`, a batch at a time."""
        core = self.loaded.module.core
        with torch.inference_mode():
            found = [core.features(core.encode(part.to(core.device)), [self.layer])[0] for part in images.split(BATCH)]
        return torch.cat([part.float().cpu() for part in found])

    def to_dict(self) -> dict[str, Any]:
        """For evaluate.json."""
        spec = self.loaded.module.spec()
        return {"source": self.source, "layer": self.layer, "layer_name": self.name, "spec": spec,
                "sha256": self.loaded.sha256}  # fmt: skip


def open_space(source: str, weights: str | None = None, layer: str | None = None) -> Space:
    """The layer of a source, by name or number; the last if left out.

    Raises:
        UserError: there is no such source or layer.
    """
    loaded = open_subject(source, **({} if weights is None else {"weights": weights}))
    loaded.module.eval()
    if isinstance(loaded, LoadedSource):
        names = list(loaded.module.source.layers)
    else:
        names = [str(number) for number in range(loaded.module.core.n_layers + 1)]
    if layer is None:
        return Space(source, loaded, len(names) - 1, names[-1])
    number = names.index(layer) if layer in names else int(layer) if layer.isdecimal() else -1
    if not 0 <= number < len(names):
        raise UserError(f"--layer {layer}: {source} has the layers 0 to {len(names) - 1}: {', '.join(names)}")
    return Space(source, loaded, number, names[number])


def read_pictures(folder: Path, shape: tuple[int, int]) -> Tensor:
    """All pictures below a folder, by name, uint8 `(N, 3, R, R)`.

    Raises:
        UserError: there is no such folder, there are fewer than ten pictures, or one is of another size.
    """
    if not folder.is_dir():
        raise UserError(f"--samples {folder}: there is no such folder; name one with pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in picture_suffixes())
    if len(files) < FEWEST:
        raise UserError(f"--samples {folder} holds {len(files)} pictures; give at least {FEWEST}")
    found = []
    for path in files:
        picture = open_rgb(path)
        if (picture.height, picture.width) != shape:
            sides, wanted = f"{picture.height}x{picture.width}", "x".join(map(str, shape))
            raise UserError(f"--samples: {path} is {sides}, but --data has {wanted}; set --data.resolution")
        found.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(*shape, 3).permute(2, 0, 1))
    return torch.stack(found)
