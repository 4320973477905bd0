"""What the tokens of shards are of: the colours of a palette, or the codes of VQ tokens.

Shapes: B images, T tokens of each in raster order, k colours or codes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igpt.palette import VQShape, sha256_of_colors, stride_of
from igpt.system import UserError


@dataclass(frozen=True, eq=False)
class ColorTokens:
    """Tokens of a palette: an image of them has the colours that stand for its tokens."""

    colors: NDArray[np.float32]  # the palette, (k, 3) in [-1, 1]
    shown: NDArray[np.uint8]  # (k, 3), the 24-bit colour that stands for each token and is encoded as that token again

    format = 1  # of the index
    stride = 1  # pixels of a token's side

    @cached_property
    def sha256(self) -> str:
        """The palette's name, as `Palette.sha256` makes it."""
        return sha256_of_colors(self.colors)

    @property
    def k(self) -> int:
        """Number of colours."""
        return len(self.shown)

    @cached_property
    def _planes(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.shown.T)

    def images(self, tokens: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Pixels uint8 `(B, 3, T)` of tokens `(B, T)`; an IndexError where a token is beyond the palette."""
        pixels = np.empty((len(tokens), 3, tokens.shape[1]), dtype=np.uint8)
        for channel, plane in enumerate(self._planes):
            pixels[:, channel] = plane[tokens]
        return pixels

    def to_dict(self) -> dict[str, Any]:
        """As the index has it."""
        return {"palette": {"sha256": self.sha256, "colors": self.colors.tolist(), "shown": self.shown.tolist()}}

    @classmethod
    def read(cls, content: dict[str, Any]) -> "ColorTokens":
        """From an index; a ValueError or KeyError where it is not as `to_dict` makes it."""
        palette = content["palette"]
        with np.errstate(over="ignore"):  # numbers too large become infinite: no index that was written so
            colors = np.array(palette["colors"], dtype=np.float32)
        return cls(colors, np.array([list(bytes(color)) for color in palette["shown"]], dtype=np.uint8))


@dataclass(frozen=True)
class CodeTokens:
    """VQ tokens: an image of them is the grid of its tokens, since no picture is encoded as given tokens again."""

    written: str  # sizes of the tokeniser, as `VQTokens.written`
    sha256: str  # of the tokeniser, as `VQTokens.sha256`

    format = 2

    @property
    def stride(self) -> int:
        """Pixels of a token's side."""
        return stride_of(self.written)

    @cached_property
    def k(self) -> int:
        """Number of codes."""
        return VQShape.read(self.written).codes

    def images(self, tokens: NDArray[np.uint16]) -> NDArray[np.int16]:
        """Tokens int16 `(B, 1, T)` of tokens `(B, T)`; an IndexError where one is beyond the codes."""
        if tokens.size and int(tokens.max()) >= self.k:
            raise IndexError(f"token {tokens.max()} of {self.k}")
        return tokens.astype(np.int16)[:, None]

    def to_dict(self) -> dict[str, Any]:
        """As the index has it."""
        return {"tokeniser": {"sha256": self.sha256, "written": self.written}}

    @classmethod
    def read(cls, content: dict[str, Any]) -> "CodeTokens":
        """From an index; a ValueError or KeyError where it is not as `to_dict` makes it."""
        tokeniser = content["tokeniser"]
        try:
            VQShape.read(tokeniser["written"])
        except UserError as error:
            raise ValueError(str(error)) from error
        return cls(str(tokeniser["written"]), str(tokeniser["sha256"]))


TokenKind = ColorTokens | CodeTokens
KINDS: tuple[type[ColorTokens] | type[CodeTokens], ...] = (ColorTokens, CodeTokens)
