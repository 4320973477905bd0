"""Exact likelihood of every test image, collected during `igpt test`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.model import NATS_PER_BIT
from igpt.modules import BERT, Autoregressive, ByteAutoregressive
from igpt.system import atomic_path, check_own

if TYPE_CHECKING:
    from igpt.palette import CellColors

HEAD = "index,label,nats_per_pixel,bits_per_pixel"
DIM = 3 * NATS_PER_BIT  # nats per pixel of one bit per dimension of RGB


class Likelihood(pl.Callback):
    """Writes `test.csv` for AR: -log p(x) / T of each image, in nats and in bits (paper, section 2.1).

    x are **palette tokens**, or VQ tokens, whose "pixel" is a token: bits compare models of one palette and
    resolution, and are not bits per dimension of RGB.
    With `rgb` these are found, too: the bits of each colour within its token's cell are added (`igpt.palette.cells`). A
    byte model's likelihood is of RGB values to begin with.

    A row an image, in the loader's order; their mean is `test/loss`. BERT gives no likelihood, and several processes
    would each see a part: then there is no file, and a line says so.

    Args:
        out: folder for test.csv; None keeps the values in memory only.
        rgb: also bits per dimension of RGB, with cells that are uniform and with cells as the training pixels are.
    """

    def __init__(self, out: str | None = None, rgb: bool = False) -> None:
        self.out = out
        self.rgb = rgb
        self.found: list[tuple[Tensor, ...]] = []  # labels and nats per pixel of each batch; of RGB as `names` says
        self.names: list[str] = []
        self.cells: CellColors | None = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew; say why, where there will be no likelihood.

        Raises:
            UserError: another file stands where test.csv is to go.
        """
        self.found, self.names = [], []
        if not trainer.is_global_zero:
            return
        if isinstance(pl_module, BERT):
            print("no likelihood of images: BERT's loss is of masked pixels, under the same masks in every test")
        elif isinstance(pl_module, Autoregressive) and trainer.world_size > 1:
            print("no likelihood of each image: it is collected in one process; use --trainer.devices 1")
        elif isinstance(pl_module, Autoregressive) and self.out is not None:
            check_own(
                Path(self.out) / "test.csv", lambda path: path.read_bytes().startswith(HEAD.encode()), option="--name"
            )
        if isinstance(pl_module, ByteAutoregressive) and pl_module.values == 256:
            self.names = ["bits_per_dim"]
        if self.rgb and isinstance(pl_module, Autoregressive) and trainer.world_size == 1:
            self.names = ["bits_per_dim_learned", "bits_per_dim_uniform"]
            self.cells = pl_module.fit_cells(trainer.datamodule)  # type: ignore[attr-defined]

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Keep one batch's labels and nats per pixel; log bits per dimension, where there is a palette."""
        if not isinstance(pl_module, Autoregressive) or trainer.world_size > 1:
            return
        nats = outputs["nats"].float().cpu()
        of_rgb = [nats] if self.names else []
        if self.cells is not None:
            of_rgb = [nats + within.mean(1) for within in self.cells.image_nats(batch[0])]
            values = {f"test/{name}": one.mean() / DIM for name, one in zip(self.names, of_rgb, strict=True)}
            pl_module.log_means(values, len(nats))
        self.found.append((outputs["labels"].cpu(), nats, *of_rgb))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print mean and deviation; write the file, where asked for."""
        self.cells = None  # 100 MB
        summary = self.summary()
        if summary is None:
            return
        assert isinstance(pl_module, Autoregressive)
        print(
            f"likelihood of {summary['images']} images: {summary['mean_nats']:.4f} nats per "
            f"{'token' if pl_module.stride > 1 else 'pixel'} "
            f"(standard deviation {summary['std_nats']:.4f}), {summary['mean_bits']:.4f} bits of {pl_module.predicts}"
        )
        if "bits_per_dim_learned" in summary:
            print(
                f"bits per dimension of RGB: {summary['bits_per_dim_learned']:.4f}, cells of the palette as training "
                f"pixels are; {summary['bits_per_dim_uniform']:.4f}, cells uniform"
            )
        if self.out is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = Path(self.out) / "test.csv"
            write_rows(path, self.names, *self.images())
            print(f"wrote {path}")

    def images(self) -> tuple[Tensor, ...]:
        """Labels `(N,)` and nats per pixel `(N,)`, in the loader's order; then of RGB, as `names` says."""
        return tuple(torch.cat(parts) for parts in zip(*self.found, strict=True))

    def summary(self) -> dict[str, float | int] | None:
        """Number of images, mean and standard deviation over them, per pixel; None where there is no likelihood."""
        if not self.found:
            return None
        _, nats, *of_rgb = (one.double() for one in self.images())
        mean, std = float(nats.mean()), float(nats.std(correction=0))
        told = {"images": len(nats), "mean_nats": mean, "std_nats": std, "mean_bits": mean / NATS_PER_BIT}
        return told | {name: float(one.mean()) / DIM for name, one in zip(self.names, of_rgb, strict=True)}


def write_rows(path: Path, names: list[str], labels: Tensor, nats: Tensor, *of_rgb: Tensor) -> None:
    """One row an image, with a column for each of `names`, which `of_rgb` belong to; 9 digits hold a float32."""
    columns = [nats.double(), nats.double() / NATS_PER_BIT, *(one.double() / DIM for one in of_rgb)]
    rows = [
        ",".join([str(index), str(label), *(f"{value:.9g}" for value in row)])
        for index, (label, row) in enumerate(zip(labels.tolist(), torch.stack(columns, 1).tolist(), strict=True))
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes("".join(f"{row}\r\n" for row in (",".join([HEAD, *names]), *rows)).encode())
