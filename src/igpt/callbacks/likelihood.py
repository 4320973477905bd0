"""Exact likelihood of every test image, collected during `igpt test`."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.model import NATS_PER_BIT
from igpt.modules import BERT, Autoregressive
from igpt.system import atomic_path, check_own

HEAD = "index,label,nats_per_pixel,bits_per_pixel"


class Likelihood(pl.Callback):
    """Writes `test.csv` for AR: -log p(x) / T of each image, in nats and in bits (paper, section 2.1).

    x are **palette tokens**: bits compare models of one palette and resolution, and are not bits per dimension of RGB.
    A row an image, in the loader's order; their mean is `test/loss`. BERT gives no likelihood, and several processes
    would each see a part: then there is no file, and a line says so.

    Args:
        out: folder for test.csv; None keeps the values in memory only.
    """

    def __init__(self, out: str | None = None) -> None:
        self.out = out
        self.found: list[tuple[Tensor, Tensor]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew; say why, where there will be no likelihood.

        Raises:
            UserError: another file stands where test.csv is to go.
        """
        self.found = []
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

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        """Keep one batch's nats per pixel and labels."""
        if isinstance(pl_module, Autoregressive) and trainer.world_size == 1:
            self.found.append((outputs["nats"].float().cpu(), outputs["labels"].cpu()))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print mean and deviation; write the file, where asked for."""
        summary = self.summary()
        if summary is None:
            return
        print(
            f"likelihood of {summary['images']} images: {summary['mean_nats']:.4f} nats per pixel "
            f"(standard deviation {summary['std_nats']:.4f}), {summary['mean_bits']:.4f} bits of palette tokens"
        )
        if self.out is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = Path(self.out) / "test.csv"
            write_rows(path, *self.images())
            print(f"wrote {path}")

    def images(self) -> tuple[Tensor, Tensor]:
        """Nats per pixel float32 `(N,)` and labels `(N,)`, in the loader's order."""
        nats, labels = zip(*self.found, strict=True)
        return torch.cat(nats), torch.cat(labels)

    def summary(self) -> dict[str, float | int] | None:
        """Number of images, mean and standard deviation over them, per pixel; None where there is no likelihood."""
        if not self.found:
            return None
        nats = self.images()[0].double()
        mean, std = float(nats.mean()), float(nats.std(correction=0))
        return {"images": len(nats), "mean_nats": mean, "std_nats": std, "mean_bits": mean / NATS_PER_BIT}


def write_rows(path: Path, nats: Tensor, labels: Tensor) -> None:
    """One row an image; 9 digits hold a float32 exactly."""
    rows = [
        f"{index},{label},{value:.9g},{value / NATS_PER_BIT:.9g}"
        for index, (value, label) in enumerate(zip(nats.tolist(), labels.tolist(), strict=True))
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes("".join(f"{row}\r\n" for row in (HEAD, *rows)).encode())
