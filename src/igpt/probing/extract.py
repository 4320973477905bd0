"""The features that a probe needs: those of a store that fits, or else one pass over the images."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from igpt.data import ImageDataModule, LabelledImages
from igpt.model import FeatureOptions
from igpt.modules import PixelModule
from igpt.probing.layer_features import LayerFeatures, identity_of
from igpt.probing.store import FeatureStore, FeatureType, holds_something_else
from igpt.system import Compute, only_writer
from igpt.training import quiet_trainer


def stored_features(
    module: PixelModule,
    ckpt: str,
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
        own: the folder was named by the user. A store of something else is then refused; in the default place it is
            replaced.

    Raises:
        UserError: the store is damaged, of something else and the user's own, or being written by another process.
    """
    identity = identity_of(ckpt, data, how, compute.precision, dtype)

    def there() -> bool:
        empty = folder.is_dir() and not any(folder.iterdir())
        return folder.exists() and not empty and (own or not holds_something_else(folder, identity, layers))

    if there():
        return FeatureStore.open(folder, identity, layers), True
    with only_writer(folder, "give another --store") if own else nullcontext():  # the default place is the caller's
        if there():  # another process has just written it
            return FeatureStore.open(folder, identity, layers), True
        writer = LayerFeatures(str(folder), ckpt, layers, how, dtype, option="--store" if own else "--out")
        trainer = quiet_trainer(compute, callbacks=[writer])
        trainer.predict(module, datamodule=data, return_predictions=False)
        return FeatureStore.open(folder, identity, layers), False


class StoredFeatures(LabelledImages):
    """Stored features of one split in place of its images: `(L, W)` each, read from disk as they are asked for."""

    def __init__(self, store: FeatureStore, split: str, layers: list[int]) -> None:
        self.labels = store.labels(split)
        self._rows = store.rows(layers)
        self._stored = store.mapped(split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        features, labels = self.__getitems__([index])
        return features[0], int(labels[0])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: `(B, L, W)` in the type on disk, and labels `(B,)`."""
        assert isinstance(self.labels, Tensor)
        features = torch.from_numpy(self._stored[np.ix_(self._rows, indices)])
        return features.transpose(0, 1), self.labels[indices]
