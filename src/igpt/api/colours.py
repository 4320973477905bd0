"""A model's palette: pictures of any kind to tokens in raster order, and back."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.api.pictures import Pictures
from igpt.api.words import speaks_python
from igpt.palette import Palette, VQTokens
from igpt.system import UserError

if TYPE_CHECKING:
    from igpt.api.model import Model


class Colours:
    """The palette of a model: pictures of any kind to tokens in raster order, and back."""

    def __init__(self, model: "Model") -> None:
        self._model = model

    def __len__(self) -> int:
        return self._palette.k

    @property
    def _palette(self) -> Palette | VQTokens:
        core = self._model.module.core
        if not core.has_palette:
            raise UserError(f"palette: {type(core).__name__} predicts RGB values and has none")
        return core.palette

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The colours, uint8 `(k, 3)`."""
        if not isinstance(self._palette, Palette):
            raise UserError("palette: VQ tokens have no colours; use encode and decode")
        return self._palette.rgb().cpu().numpy()

    @speaks_python
    def encode(self, images: Any) -> NDArray[np.int64]:
        """Tokens int64 `(N, R * R)` in raster order: the number of the nearest colour of every pixel."""
        colors, model = self._palette, self._model
        model.module.core.check_palette()
        parts = [colors.encode(part.to(model.device)) for part in model.batches(images)]
        return torch.cat(parts).cpu().numpy()

    @speaks_python
    def decode(self, tokens: Any) -> Pictures:
        """Pictures uint8 `(..., R, R, 3)` of tokens `(..., R * R)` in raster order."""
        shape, found = self._model.module.core.shape, torch.as_tensor(tokens)
        length = math.prod(shape)
        if found.ndim < 1 or found.shape[-1] != length or found.is_floating_point() or found.dtype == torch.bool:
            raise UserError(f"tokens: {found.dtype} {tuple(found.shape)} are none; give whole numbers (N, {length})")
        if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < len(self):
            raise UserError(f"tokens must lie in 0..{len(self) - 1}, the numbers of the palette's colours")
        flat = found.reshape(-1, length).long().to(self._model.device)
        return Pictures.of(self._palette.decode(flat, shape).unflatten(0, found.shape[:-1] or (1,)))
