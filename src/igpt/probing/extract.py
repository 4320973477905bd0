"""Layer features of a data set: computed in one pass over the images, or reused from disk (paper, section 2.4)."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from igpt.data import SPLITS, ImageDataModule, any_unlabelled, fingerprint
from igpt.families import ProbedSource
from igpt.model import FeatureOptions, check_layers, forward_operations
from igpt.modules import PixelModule
from igpt.probing.protocol import Probed
from igpt.probing.store import FeatureStore, FeatureType, StoreWriter, differences, read_manifest
from igpt.system import Compute, Progress, UserError, only_writer, sha256_of
from igpt.training import quiet_trainer

WORTH_COMPILING = 5e15  # operations that an H100 does 10 s sooner by compiled blocks, which take 6 s to compile
LOOKED_AT = 64  # images of each split whose pixels a store's identity holds; all would cost a pass over the data


class LayerFeatures(pl.Callback):
    """Writes the features of every split into a feature store (`igpt.probing.store`; paper, section 2.4).

    Args:
        out: folder of the store.
        checkpoint: file that the weights come from; None where the model is no checkpoint's.
        layers: which of 0..L; None is all.
        how: norm, pooling and masks.
        dtype: of the numbers on disk.
        option: that names the store's folder, or a folder that it lies in.
        identity: what the features are of (`identity_of`), where it is known.
    """

    def __init__(
        self,
        out: str,
        checkpoint: str | None = None,
        layers: list[int] | None = None,
        how: FeatureOptions = FeatureOptions(),
        dtype: FeatureType = "float16",
        option: str = "--name",
        identity: dict[str, Any] | None = None,
    ) -> None:
        self.out, self.checkpoint, self.layers, self.how = out, checkpoint, layers, how
        self.option, self.identity = option, identity
        self.dtype: FeatureType = dtype
        self._writer: StoreWriter | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell the module which features to compute."""
        if not isinstance(pl_module, PixelModule | ProbedSource):
            raise UserError(
                f"LayerFeatures takes no {type(pl_module).__name__}; 'igpt probe' writes features of every family"
            )
        if stage == "predict" and trainer.world_size > 1:
            raise UserError("--trainer.devices: features are collected in one process; use 1")
        if self.layers is None:
            self.layers = list(range(pl_module.core.n_layers + 1))
        check_layers(self.layers, pl_module.core.n_layers)
        pl_module.core.check_features(self.how)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a store."""
        assert isinstance(pl_module, PixelModule | ProbedSource)
        assert self.layers is not None
        pl_module.feature_layers, pl_module.feature_options = self.layers, self.how
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        checksum = sha256_of(self.checkpoint) if self.checkpoint else None
        known = self.identity or identity_of(checksum, data, self.how, str(trainer.precision), self.dtype)
        images: dict[str, int] = {name: data.size(name) for name in SPLITS}
        widths = pl_module.core.widths(self.layers, self.how)
        writer = StoreWriter(Path(self.out), known, self.layers, images, self.dtype, self.option, widths)
        self._writer = writer.__enter__()

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        assert self._writer is not None
        self._writer.add(SPLITS[dataloader_idx], outputs["features"], outputs["labels"])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the store its name."""
        self._close(None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        self._close(exception)

    def _close(self, error: BaseException | None) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(type(error) if error else None, error, None)


def identity_of(
    checksum: str | None, data: ImageDataModule, how: FeatureOptions, precision: str, dtype: FeatureType
) -> dict[str, Any]:
    """What a store's features are features of, as plain data.

    How the images are loaded plays no part, except that masks belong to batches.
    """
    spec = data.spec()
    ignored = {"num_workers"} if how.masks else {"num_workers", "batch_size"}
    spec["init_args"] = {name: value for name, value in spec["init_args"].items() if name not in ignored}
    return {
        "checkpoint_sha256": checksum,
        "data": spec,
        "images": {name: fingerprint(data.images(name), looked_at=some_of(data.size(name))) for name in SPLITS},
        "features": how.to_dict(),
        "precision": precision,
        "dtype": dtype,
    }


def worth_compiling(module: PixelModule, images: int, compute: Compute) -> bool:
    """Whether features of so many images take a GPU so long that compiling the blocks first pays."""
    operations = images * forward_operations(module.core.transformer.config, module.core.causal)
    return compute.device == "cuda" and operations > WORTH_COMPILING


def some_of(count: int, most: int = LOOKED_AT) -> list[int]:
    """Up to `most` evenly spaced indices below `count`."""
    return sorted(set(torch.linspace(0, count - 1, most).long().tolist()))


def stored_features(
    module: Probed,
    checksum: str,
    data: ImageDataModule,
    layers: list[int],
    how: FeatureOptions,
    *,
    folder: Path,
    own: bool,
    dtype: FeatureType,
    compute: Compute,
) -> tuple[FeatureStore, bool]:
    """Open the store in `folder`, or make it; also say whether it was there.

    Args:
        checksum: SHA-256 of the module's checkpoint.
        own: the user named the folder: a store of something else in it is then refused instead of replaced.

    Raises:
        UserError: the store is damaged, of something else and the user's own, or being written by another process.
    """
    identity = identity_of(checksum, data, how, compute.precision, dtype)

    def reusable() -> bool:
        there = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
        return there and (own or not differences(read_manifest(folder), identity, layers))

    alone = own and not reusable()  # the default place is locked by the caller
    with only_writer(folder, "give another --store") if alone else nullcontext():
        reused = reusable()  # perhaps another process has just written it
        if not reused:
            writer = LayerFeatures(str(folder), None, layers, how, dtype, "--store" if own else "--out", identity)
            images = sum(data.size(name) for name in SPLITS)
            with Progress(images, "images: features", quiet=True) as progress:
                counting = LambdaCallback(
                    on_predict_batch_end=lambda _, __, ___, batch, *____: progress.add(len(batch[1]))
                )
                trainer = quiet_trainer(compute, callbacks=[writer, counting])
                trainer.predict(module, datamodule=data, return_predictions=False)
        return FeatureStore.open(folder, identity, layers), reused


def count_classes(data: ImageDataModule) -> int:
    """Number of classes, one above the highest label, without reading an image.

    Raises:
        UserError: there are images without a label, or only one class.
    """
    labels: Tensor = torch.cat([torch.as_tensor(data.images(name).labels) for name in SPLITS])
    if any_unlabelled(labels):
        raise UserError("--data: some images have no label (-1); probing needs labelled images")
    highest = int(labels.max())
    if highest < 1:
        raise UserError("--data: all images have the same label; probing needs at least two classes")
    return highest + 1
