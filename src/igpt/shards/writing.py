"""From tokens to the bytes of a shard, and the colours that stand for tokens."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from igpt.errors import UserError
from igpt.files import sha256_of
from igpt.palette import Palette
from igpt.shards.index import Shard


def write_shard(
    target: Path, labels: NDArray[np.int64], tokens: NDArray[np.uint16], resolution: int, beside: Path
) -> Shard:
    """Write one shard, whole or not at all; the same tokens give the same bytes.

    Args:
        target: file to write.
        labels: int64 `(N,)`.
        tokens: uint16 `(N, V, T)`.
        resolution: side R, T being R * R.
        beside: folder on the same disk for the file while it is not whole.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    shard = Shard(target.name, tokens.shape[0], tokens.shape[1], 0, "")
    record = np.empty(1, dtype=shard.dtype(resolution))
    record["labels"][0], record["tokens"][0] = labels, tokens
    name = None
    try:
        handle, name = tempfile.mkstemp(dir=beside, prefix=f"{target.stem}.")  # whoever else writes the same shard
        with open(handle, "wb") as file:
            np.lib.format.write_array(file, record, allow_pickle=False)
        os.chmod(name, 0o666 & ~_umask())  # temporary files are their owner's alone
        shard = Shard(target.name, shard.images, shard.views, os.path.getsize(name), sha256_of(name))
        os.replace(name, target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; make room or choose another --out"
        ) from error
    finally:
        if name is not None:
            with suppress(OSError):
                os.unlink(name)
    return shard


def _umask() -> int:
    """What new files of this process are not allowed; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
