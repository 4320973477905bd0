"""Images come in: the contract of a data module, loaders, splits, and all that a plug-in may import."""

from igpt.data.contract import NO_LABEL, check_item
from igpt.data.datamodule import DEVICE_GIB, ImageDataModule
from igpt.data.imagefile import BadImageError, decode_rgb, missing_decoder
from igpt.data.images import AugmentedImages, ChosenImages, LabelledImages, TensorImages, fetch
from igpt.data.keyed import random_ints, rng_of
from igpt.data.loaders import TrainingImages, TrainingOrder, WholeBatches
from igpt.data.permutation import permuted
from igpt.data.pictures import (
    check_pair,
    confusion_figure,
    enlarge,
    grid,
    heat,
    heat_legend,
    open_mask,
    open_picture,
    save_picture,
)
from igpt.data.shards.index import NAME, Index, Shard, check_shards
from igpt.data.shards.reading import ShardReader
from igpt.data.splits import SPLITS, Split, SplitOptions, few_per_class, stratified_split
from igpt.data.workers import WatchedLoader, begin_worker, collate
from igpt.system import UserError

__all__ = [
    "DEVICE_GIB", "NAME", "NO_LABEL", "SPLITS", "AugmentedImages", "BadImageError", "ChosenImages",
    "ImageDataModule", "Index", "LabelledImages", "Shard", "ShardReader", "Split", "SplitOptions", "TensorImages",
    "TrainingImages", "TrainingOrder", "UserError", "WatchedLoader", "WholeBatches", "begin_worker", "check_item",
    "check_pair", "check_shards", "collate", "confusion_figure", "decode_rgb", "enlarge", "fetch", "few_per_class",
    "grid", "heat", "heat_legend", "missing_decoder", "open_mask", "open_picture", "permuted", "random_ints",
    "rng_of", "save_picture", "stratified_split",
]  # fmt: skip
