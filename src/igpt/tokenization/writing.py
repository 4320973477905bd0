"""Writing a shard, and what its tokens are of, such as the 24-bit colour that stands for each."""

import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.data import CodeTokens, ColorTokens, Shard, TokenKind
from igpt.palette import Palette, VQTokens
from igpt.system import UserError, sha256_of, sync


def write_shard(target: Path, labels: NDArray[np.int64], tokens: NDArray[np.uint16], beside: Path) -> Shard:
    """Write one shard, whole or not at all, also where the power fails; the same tokens give the same bytes.

    Args:
        target: file to write.
        labels: int64 `(N,)`.
        tokens: uint16 `(N, V, T)`.
        beside: folder on the same disk for the file while it is not whole.
    """
    shard = Shard(target.name, tokens.shape[0], tokens.shape[1], 0, "")
    record = np.empty(1, dtype=shard.dtype(tokens.shape[2]))
    record["labels"][0], record["tokens"][0] = labels, tokens
    part = beside / f"{target.stem}.{uuid.uuid4().hex}"  # whoever else writes the same shard
    try:
        with open(part, "xb") as file:
            np.lib.format.write_array(file, record, allow_pickle=False)
        shard = Shard(target.name, shard.images, shard.views, os.path.getsize(part), sha256_of(part))
        sync(part)  # before there is a record, which is believed by the file's size alone
        os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; make room or choose another --out"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
    return shard


def kind_of(tokeniser: Palette | VQTokens) -> TokenKind:
    """What the index says of the tokens."""
    if isinstance(tokeniser, VQTokens):
        return CodeTokens(tokeniser.written, tokeniser.sha256)
    return ColorTokens(tokeniser.colors.numpy(), stand_ins(tokeniser))


def stand_ins(palette: Palette) -> NDArray[np.uint8]:
    """A 24-bit colour uint8 `(k, 3)` for each token, which the palette sends back to that very token.

    That is the palette's colour, rounded, wherever rounding does not take it to a neighbour; otherwise some 24-bit
    colour that is nearest to it. A colour that is nearest to none never becomes a token.
    """
    colors = palette.rgb().cpu()
    lost = palette.nearest(colors) != torch.arange(palette.k)
    if lost.any():
        low = torch.cartesian_prod(torch.arange(256), torch.arange(256)).to(torch.uint8)
        for red in range(256):
            rgb = torch.cat([torch.full((len(low), 1), red, dtype=torch.uint8), low], dim=1)
            token = palette.nearest(rgb)
            hit = lost[token]
            colors[token[hit]] = rgb[hit]
    return colors.numpy()
