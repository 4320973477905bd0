"""The features that a probe needs: those of a store that fits, or else one pass over the images."""

from pathlib import Path
from typing import Literal

from igpt.callbacks.layer_features import LayerFeatures, identity_of
from igpt.commands.device import quiet_trainer
from igpt.data import ImageDataModule
from igpt.features import FeatureOptions
from igpt.modules import PixelModule
from igpt.probing.store import FeatureStore, FeatureType, holds_something_else

Precision = Literal["32-true", "bf16-mixed"]


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
    accelerator: str,
    precision: Precision,
) -> tuple[FeatureStore, bool]:
    """Open the store in `folder`, or make it; also say whether it was there.

    Args:
        own: the folder was named by the user. A store of something else is then refused; in the default place it is
            replaced.

    Raises:
        UserError: the store is damaged, or of something else and the user's own.
    """
    module.core.check_resolution(data.resolution)
    how.check(module.core.resolution, module.core.causal)
    data.prepare_data()
    data.setup("predict")
    identity = identity_of(ckpt, data, how, precision, dtype)
    if folder.exists() and (own or not holds_something_else(folder, identity, layers)):
        return FeatureStore.open(folder, identity, layers), True
    trainer = quiet_trainer(
        accelerator=accelerator, precision=precision, callbacks=[LayerFeatures(str(folder), ckpt, layers, how, dtype)]
    )
    trainer.predict(module, datamodule=data, return_predictions=False)
    return FeatureStore.open(folder, identity, layers), False
