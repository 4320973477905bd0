"""`igpt surprise`: how surprising each pixel of a picture is to a model."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.data import check_pair, enlarge, grid, heat, heat_legend, open_picture, save_picture
from igpt.model import NATS_PER_BIT
from igpt.modules import PixelModel, load
from igpt.system import Compute, Precision, UserError, atomic_path, compute_of
from igpt.training import check_seed, ready

SIDE = 192  # pixels an image is enlarged to, so that the legend fits below two of them
BATCH = 16


def surprise(
    files: list[str],
    ckpt: str,
    out: str,
    seed: int = 0,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """A picture of how surprising each pixel is: -log p of its palette colour, in nats.

    Writes a picture with a row a file, the image in palette colours beside its heat map, all on one scale from 0 to
    the highest surprise of all files; and beside it NAME.npy, float32 (files, R, R) in nats. Prints the mean of each.

    AR: exact, each pixel given those before it; the sum is the image's negative log-likelihood. BERT: every pixel is
    scored once while it is hidden, under disjoint masks of about the share that it was trained with, given all pixels
    outside its mask; that is a pseudo-likelihood, which can be compared between images but not with AR's.

    Args:
        files: pictures; of each the central square, at the model's resolution, in palette colours.
        ckpt: checkpoint of an AR or BERT model, or of one that was fine-tuned.
        out: picture to write, such as surprise.png.
        seed: of BERT's masks.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.

    Raises:
        UserError: no such checkpoint or picture, `out` names no picture format, or holds what is not of this command.
    """
    check_pair(out, is_surprise, [ckpt, *files])
    check_seed(seed)
    if not files:
        raise UserError("--files is empty; name one picture or more")
    compute = ready(compute_of(accelerator, precision), tf32)
    module = load(ckpt, compute.device).module.core
    images = torch.stack([open_picture(file, module.resolution) for file in files])
    tokens, nats = surprise_of(module, images, seed, compute)
    top = max(float(nats.max()), 1e-6)
    pairs = torch.stack([module.palette.decode(tokens).cpu(), heat(nats, top)], dim=1)
    picture = enlarge(grid(pairs.flatten(0, 1), columns=2), module.resolution, SIDE)
    legend = heat_legend(top, picture.shape[2], "nats per pixel")
    beside = Path(out).with_suffix(".npy")
    with atomic_path(out) as shown, atomic_path(beside) as path:  # both files, or none
        save_picture(torch.cat([picture, legend], dim=1), shown)
        np.save(path, nats.numpy())
    for file, mean in zip(files, nats.double().mean((1, 2)).tolist(), strict=True):
        print(f"{file}: {mean:.4f} nats, {mean / NATS_PER_BIT:.4f} bits per pixel")
    print(f"wrote {out}, {beside.name}")


def is_surprise(array: NDArray[np.generic]) -> bool:
    """Whether `surprise` writes such arrays, `(N, R, R)`."""
    return array.dtype == np.float32 and array.ndim == 3 and array.shape[1] == array.shape[2]


@torch.inference_mode()
def surprise_of(module: PixelModel, images: Tensor, seed: int, compute: Compute) -> tuple[Tensor, Tensor]:
    """Tokens int64 `(N, T)` and surprise float32 `(N, R, R)` on the CPU, both in raster order, of images uint8."""
    tokens = module.encode(images.to(module.device))
    with compute.autocast():
        nats = torch.cat([module.surprise(part, seed) for part in tokens.split(BATCH)])
    return module.to_raster(tokens), module.to_raster(nats).unflatten(1, (module.resolution, -1)).cpu()
