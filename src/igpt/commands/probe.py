"""`igpt probe`: the accuracy of a linear classifier on the features of every layer."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.callbacks import LayerFeatures
from igpt.commands.device import device_of
from igpt.data import SPLITS, ImageDataModule
from igpt.errors import UserError
from igpt.loading import Loaded, load
from igpt.probing.protocol import SplitFeatures, best_layer, probe_layers
from igpt.probing.tables import text_table, write_results
from igpt.transformer import check_layers

RAW_PIXELS = -1


def probe(
    ckpt: str,
    data: ImageDataModule | None = None,
    layers: str = "all",
    method: Literal["lbfgs"] = "lbfgs",
    out: str | None = None,
    accelerator: str = "auto",
    precision: str = "32-true",
) -> None:
    """Fit a linear classifier on the features of every layer, and print and write its accuracy (paper, section 2.4).

    Features are means over positions of each block's normed input. The strength of the penalty is chosen on the
    validation split, then the probe is fitted again on training + validation and scored on the test split. Writes
    probe.json, probe.csv and layers.png.

    Args:
        ckpt: checkpoint of igpt.
        data: whose images to probe with; the data that the checkpoint was trained on if left out.
        layers: "all", or numbers from 0 (input of the first block) to L (final norm), such as 0,4,8.
        method: how the probe is fitted; lbfgs is the paper's way for CIFAR and STL.
        out: folder to write to; a folder "probe" beside the checkpoint's folder if left out.
        accelerator: where the network runs, as in Lightning: auto, cpu, gpu.
        precision: of the network, as in Lightning: 32-true, bf16-mixed.

    Raises:
        UserError: no such checkpoint or layer, or the data have no labels.
    """
    loaded = load(ckpt)
    wanted = parse_layers(layers, loaded.module.core.n_layers)
    data = data if data is not None else loaded.data()
    data.split = replace(
        data.split, fold_validation=False
    )  # the strength is chosen on images that it was not fitted to
    device_of(accelerator)
    folder = Path(out) if out else Path(ckpt).absolute().parent.parent / "probe"
    started = time.perf_counter()
    splits = collect(loaded, data, wanted, accelerator, precision)
    extracted = time.perf_counter()
    results = probe_layers(splits, wanted, num_classes(splits))
    pixels = probe_layers(raw_pixels(data), [RAW_PIXELS], num_classes(splits))[0]
    protocol = {
        "checkpoint": str(ckpt),
        "step": loaded.step,
        "data": data.spec(),
        "method": method,
        "features": "mean over positions of the normed input of each layer, standardised on the training split",
        "strength": "chosen on validation, refitted on train + val",
        "images": {name: int(splits[name][1].numel()) for name in SPLITS},
    }
    write_results(folder, results, pixels, protocol)
    best = best_layer(results)
    print(text_table(results, pixels))
    print(
        f"best layer {best.layer} of 0..{loaded.module.core.n_layers}: test accuracy {best.test_accuracy:.4f} "
        f"(raw pixels {pixels.test_accuracy:.4f}); features {extracted - started:.1f} s, "
        f"probes {time.perf_counter() - extracted:.1f} s\n"
        f"wrote {folder / 'probe.json'}, probe.csv, layers.png"
    )


def parse_layers(text: str, n_layers: int) -> list[int]:
    """Turn "all" or "0,4,8" into a sorted list of layers.

    Raises:
        UserError: not numbers, or no such layer.
    """
    if text == "all":
        return list(range(n_layers + 1))
    try:
        layers = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise UserError(f"--layers {text!r} is neither 'all' nor numbers such as 0,4,8") from error
    check_layers(layers, n_layers)
    return layers


def collect(
    loaded: Loaded, data: ImageDataModule, layers: list[int], accelerator: str, precision: str
) -> SplitFeatures:
    """Features of the asked layers for all splits, in one pass over the images."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callback = LayerFeatures(layers)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.predict(loaded.module, datamodule=data, return_predictions=False)
    return {name: callback.split(index) for index, name in enumerate(SPLITS)}


def raw_pixels(data: ImageDataModule) -> SplitFeatures:
    """The pixels themselves as features, `(1, N, 3 R R)` in 0..1, to compare with."""
    splits: SplitFeatures = {}
    for name in SPLITS:
        batches = [(images.flatten(1).float() / 255, labels) for images, labels in data.loader(name)]
        splits[name] = (torch.cat([b[0] for b in batches])[None], torch.cat([b[1] for b in batches]))
    return splits


def num_classes(splits: dict[str, tuple[Tensor, Tensor]]) -> int:
    """Number of classes that occur.

    Raises:
        UserError: there are images without a label, or only one class.
    """
    labels = torch.cat([split[1] for split in splits.values()])
    if int(labels.min()) < 0:
        raise UserError("--data: some images have no label (-1); probing needs labelled images")
    if int(labels.max()) < 1:
        raise UserError("--data: all images have the same label; probing needs at least two classes")
    return int(labels.max()) + 1
