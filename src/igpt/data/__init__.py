"""Images come in: data modules, their loaders and splits, shards of tokens, and all that a plug-in may import."""

from igpt.data.contract import check_item
from igpt.data.datamodule import DEVICE_GIB, ImageDataModule
from igpt.data.imagefile import (
    CROP,
    BadImageError,
    Box,
    Resolution,
    centre_crop_box,
    check_background,
    check_pair,
    crop_size,
    decode_rgb,
    is_transparent,
    missing_decoder,
    open_mask,
    open_picture,
    open_rgb,
    picture_suffixes,
    resample,
    resized,
    save_picture,
    shape_of,
    source_box,
    upright_rgb,
)
from igpt.data.images import (
    NO_LABEL,
    AugmentedImages,
    ChosenImages,
    LabelledImages,
    TensorImages,
    any_unlabelled,
    evenly_spaced,
    fetch,
    fingerprint,
    label_bytes,
    pixel_sha256,
    wrap,
)
from igpt.data.loaders import TrainingImages, TrainingOrder, WholeBatches
from igpt.data.plots import (
    beside,
    confusion_figure,
    draw_confusion,
    enlarge,
    grid,
    heat,
    heat_legend,
    scale_for,
    with_headings,
)
from igpt.data.randomness import permuted, random_ints, rng_of
from igpt.data.shards import (
    NAME,
    CodeTokens,
    ColorTokens,
    Index,
    Shard,
    ShardReader,
    TokenKind,
    check_shards,
)
from igpt.data.splits import SPLITS, Split, SplitOptions, few_per_class, sampling_error, spread, stratified_split
from igpt.data.workers import WatchedLoader, begin_worker, collate, end_with_the_parent
from igpt.system import UserError, atomic_path, with_progress

__all__ = [
    "CROP", "DEVICE_GIB", "NAME", "NO_LABEL", "SPLITS", "AugmentedImages", "BadImageError", "Box", "ChosenImages",
    "CodeTokens", "ColorTokens", "ImageDataModule", "Index", "LabelledImages", "Resolution", "Shard", "ShardReader",
    "Split", "SplitOptions", "TensorImages", "TokenKind", "TrainingImages", "TrainingOrder", "UserError",
    "WatchedLoader", "WholeBatches", "any_unlabelled", "atomic_path", "begin_worker", "beside", "centre_crop_box",
    "check_background", "check_item", "check_pair", "check_shards", "collate", "confusion_figure", "crop_size",
    "decode_rgb", "draw_confusion", "end_with_the_parent", "enlarge", "evenly_spaced", "fetch", "few_per_class",
    "fingerprint", "grid", "heat", "heat_legend", "is_transparent", "label_bytes", "missing_decoder", "open_mask",
    "open_picture", "open_rgb", "permuted", "picture_suffixes", "pixel_sha256", "random_ints", "resample", "resized",
    "rng_of", "sampling_error", "save_picture", "scale_for", "shape_of", "source_box", "spread", "stratified_split",
    "upright_rgb", "with_headings", "with_progress", "wrap",
]  # fmt: skip
