"""VQ tokens in place of colours: a small convolutional autoencoder whose middle is one of k codes (paper, version 1).

Shapes: B images, R rows and columns of pixels, G = R / 4 of tokens, T = G * G in raster order, k codes of C numbers.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igpt.palette.palette import Palette
from igpt.system import UserError, atomic_path

SUFFIX = ".safetensors"
PREFIX = "vq:"  # before the sizes of a tokeniser whose weights a checkpoint brings
STRIDE = 4  # pixels of a token's side
GRID = torch.int16  # of images that are given as the grid of their tokens already, (B, 1, G, G)
CHUNK = 16  # images in each pass of encoder or decoder, always
MOST = {"codes": 1 << 15, "width": 1024, "latent": 256, "blocks": 16}


@dataclass(frozen=True)
class VQShape:
    """Sizes of a VQ autoencoder.

    Args:
        codes: in the codebook, k.
        width: channels of the convolutions; a multiple of 2.
        latent: numbers of a code, C.
        blocks: residual blocks of encoder and of decoder.
        levels: of each of a code's numbers, whose product is k and whose count is C: finite scalar quantisation (FSQ,
            Mentzer et al. 2024), where codes are the points of a grid and only the convolutions are learned. If empty,
            codes are learned, too.

    Raises:
        UserError: a size is out of range.
    """

    codes: int = 512
    width: int = 64
    latent: int = 16
    blocks: int = 2
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"VQ tokens: {name} {value} is out of range; choose 1 to {most:,}")
        made = math.prod(self.levels), len(self.levels)
        if self.levels and (min(self.levels) < 2 or made != (self.codes, self.latent)):
            raise UserError(
                f"VQ tokens: levels {list(self.levels)} must each be at least 2 and make {self.codes} codes of "
                f"{self.latent} numbers"
            )
        if self.width % 2:
            raise UserError(f"VQ tokens: width {self.width} must be even")

    @classmethod
    def of_levels(cls, levels: Sequence[int], width: int = 64, blocks: int = 2) -> "VQShape":
        """The shape whose codes are all combinations of so many levels."""
        return cls(math.prod(levels), width, len(levels), blocks, tuple(levels))

    def written(self) -> str:
        """As text, which `read` understands."""
        words = [
            *map(str, (self.codes, self.width, self.latent, self.blocks)),
            *(["x".join(map(str, self.levels))] * bool(self.levels)),
        ]
        return PREFIX + ",".join(words)

    @classmethod
    def read(cls, text: str) -> "VQShape":
        """From text as `written` makes it; a UserError for other text."""
        try:
            *words, levels = text.removeprefix(PREFIX).split(",") + [""] * (text.count(",") < 4)
            codes, width, latent, blocks = map(int, words)
            return cls(codes, width, latent, blocks, tuple(int(level) for level in levels.split("x") if levels))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"VQ tokens: {text!r} describes none; it reads vq:CODES,WIDTH,LATENT,BLOCKS[,LEVELSxLEVELS...]"
            ) from error


class Residual(nn.Sequential):
    """A 3x3 and a 1x1 convolution, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(width, width // 2, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(width // 2, width, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        out: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]
        return out


def encoder_of(shape: VQShape) -> nn.Sequential:
    """Images `(B, 3, R, R)` in [-1, 1] to vectors `(B, C, G, G)`."""
    return nn.Sequential(
        nn.Conv2d(3, shape.width // 2, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(shape.width // 2, shape.width, 4, stride=2, padding=1),
        *(Residual(shape.width) for _ in range(shape.blocks)), nn.ReLU(), nn.Conv2d(shape.width, shape.latent, 1),
    )  # fmt: skip


def decoder_of(shape: VQShape) -> nn.Sequential:
    """Vectors `(B, C, G, G)` to images `(B, 3, R, R)`, about in [-1, 1]."""
    return nn.Sequential(
        nn.Conv2d(shape.latent, shape.width, 3, padding=1),
        *(Residual(shape.width) for _ in range(shape.blocks)), nn.ReLU(),
        nn.Conv2d(shape.width, 3 * STRIDE**2, 3, padding=1), nn.PixelShuffle(STRIDE),
    )  # fmt: skip


class VQTokens(nn.Module):
    """An encoder, k codes and a decoder, with the interface of `Palette`: each token is that of the nearest code.

    All weights are buffers, so that nothing of it is trained with the network that predicts its tokens.

    Args:
        shape: its sizes; the codes are NaN until weights come.
    """

    stride = STRIDE
    has_table = False
    codebook: Tensor

    def __init__(self, shape: VQShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder, self.decoder = encoder_of(shape), decoder_of(shape)
        self.register_buffer("codebook", torch.full((shape.codes, shape.latent), math.nan))
        for module in list(self.modules()):
            for name, value in list(module._parameters.items()):
                delattr(module, name)
                module.register_buffer(name, None if value is None else value.detach().clone())

    @property
    def k(self) -> int:
        """Number of codes, which is the vocabulary size of the transformer."""
        return self.shape.codes

    @property
    def is_blank(self) -> bool:
        """Whether the codes are still to come."""
        return bool(self.codebook.isnan().any())

    @property
    def written(self) -> str:
        """What builds a blank one of these sizes."""
        return self.shape.written()

    @property
    def sha256(self) -> str:
        """Digest of sizes and weights: the tokeniser's name in checkpoints and shards."""
        digest = hashlib.sha256(self.written.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().float().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, 3, R, R)` to tokens int64 `(B, T)`, in float32; ties go to the lower index.

        Always so many images at once, so that a picture's tokens do not depend on those beside it. Images that come as
        their tokens, int16 `(B, 1, G, G)` of shards that this tokeniser made, are left as they are.
        """
        if images.dtype == GRID:
            return images.flatten(1).long()
        if any(side % STRIDE for side in images.shape[2:]):
            raise UserError(f"VQ tokens need sides that are multiples of {STRIDE}, not {tuple(images.shape[2:])}")
        return in_chunks(self._encode, images)

    def _encode(self, images: Tensor) -> Tensor:
        vectors = self.encoder(images.float() / 127.5 - 1).flatten(2).transpose(1, 2)
        if self.shape.levels:
            vectors = within_levels(vectors, self.shape.levels)
        return nearest_codes(vectors, self.codebook)

    @torch.no_grad()
    def decode(self, tokens: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Tokens `(B, T)`, of so many rows and columns or square, to images uint8 of 4 times as many pixels a side."""
        side = math.isqrt(tokens.shape[1])
        rows, columns = shape or (side, side)
        return in_chunks(self._decode, tokens.unflatten(1, (rows, columns)))

    def _decode(self, tokens: Tensor) -> Tensor:
        images = self.decoder(self.codebook[tokens].movedim(-1, 1))
        return torch.round(127.5 * (images + 1)).clamp(0, 255).to(torch.uint8)

    def save(self, path: str | Path) -> None:
        """Write sizes and weights as safetensors."""
        with atomic_path(path) as temporary:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, temporary,
                      metadata={"igpt": self.written})  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "VQTokens":
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or another one.
        """
        again = "build one with 'igpt palette --kind vq'"
        if not Path(path).is_file():
            raise UserError(f"palette file {path} does not exist; {again} --out {path}")
        try:
            with safe_open(path, "pt") as file:
                written = (file.metadata() or {})["igpt"]
            found = cls(VQShape.read(written))
            found.load_state_dict(load_file(path))
        except UserError:
            raise
        except Exception as error:  # safetensors' own, KeyError, RuntimeError: whatever a foreign file is
            raise UserError(f"palette file {path} holds no VQ tokens; {again}") from error
        found.check(f"palette file {path}")
        return found

    def check(self, name: str) -> None:
        """Raise a UserError that begins with `name` where a weight is no finite number."""
        if not all(bool(value.isfinite().all()) for value in self.state_dict().values()):
            raise UserError(f"{name} has weights that are no finite numbers; build it with 'igpt palette --kind vq'")


def open_tokens(path: str | Path) -> Palette | VQTokens:
    """What makes tokens of pictures, of a file: VQ tokens of .safetensors, else colours; a UserError for another."""
    return VQTokens.load(path) if Path(path).suffix == SUFFIX else Palette.load(path)


def blank_tokens(path: str | None, k: int) -> Palette | VQTokens:
    """What a state dict will fill, as `path` says: sizes as `VQShape.written`, a file's name or None."""
    if path is not None and path.startswith(PREFIX):
        return VQTokens(VQShape.read(path))
    return VQTokens(VQShape(codes=k)) if is_vq(path) else Palette.blank(k)


def is_vq(path: str | None) -> bool:
    """Whether a config's palette is VQ tokens, by its name."""
    return path is not None and (path.startswith(PREFIX) or path.endswith(SUFFIX))


def stride_of(path: str | None) -> int:
    """Pixels of a token's side, by the name of a config's palette."""
    return STRIDE if is_vq(path) else 1


def pixels_of(images: Tensor) -> tuple[int, int]:
    """Rows and columns in pixels of images `(B, C, ...)`, which may be grids of their VQ tokens."""
    stride = STRIDE if images.dtype == GRID else 1
    return images.shape[-2] * stride, images.shape[-1] * stride


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code in squared distance, int64 `(...)`, of vectors `(..., C)`."""
    return (codebook.square().sum(1) - 2 * (vectors @ codebook.T)).argmin(-1)


def within_levels(vectors: Tensor, levels: Sequence[int]) -> Tensor:
    """Vectors `(..., C)` in the range of their levels, before they are rounded to the nearest (FSQ, section 3.1).

    Number i then lies in [-1, 1] and a thousandth more, or, where its levels are even, down to -1 and up to the last
    of them, `2 / levels[i]` below 1.
    """
    count = torch.tensor(levels, device=vectors.device)
    half = (count - 1) * (1 + 1e-3) / 2
    offset = torch.where(count % 2 == 0, 0.5, 0.0)  # an even number of levels has none in the middle
    return ((vectors + (offset / half).atanh()).tanh() * half - offset) / (count // 2)


def in_chunks(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """`function` of a batch, of exactly CHUNK at once: the last part is filled up, and what that gave is dropped."""
    if not len(batch):
        batch = batch.new_zeros(1, *batch.shape[1:])
        return in_chunks(function, batch)[:0]
    parts = []
    with torch.autocast(batch.device.type, enabled=False):
        for part in batch.split(CHUNK):
            filled = torch.cat([part, part[:1].expand(CHUNK - len(part), *part.shape[1:])])
            parts.append(function(filled)[: len(part)])
    return torch.cat(parts)
