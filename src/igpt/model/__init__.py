"""The network and what it computes: logits, losses, features, samples. Torch alone, no Lightning."""

from igpt.model.attention import LONG, attend_in_blocks, resized_bias
from igpt.model.cache import Decoder
from igpt.model.distaug import (
    Transformations,
    check_families,
    check_shape,
    condition_names,
    draw_rows,
    rows_of,
    transform,
    transformations,
)
from igpt.model.features import FeatureOptions, pooling
from igpt.model.objectives import (
    NATS_PER_BIT,
    covering_masks,
    draw_mask,
    majority_vote,
    masked_pixel_loss,
    next_pixel_loss,
    pixel_loss,
    pixel_nll,
)
from igpt.model.order import STRIDES, Order, inverse_order, pixel_order, resize_positions, slices_of, with_slices
from igpt.model.sampling import SamplingOptions, generate, infill, sample
from igpt.model.transformer import (
    ADDED,
    NORM_EPS,
    PRESETS,
    PixelTransformer,
    TransformerConfig,
    check_layers,
    forward_operations,
    parameter_count,
    with_preset,
)

__all__ = [
    "ADDED", "LONG", "NATS_PER_BIT", "NORM_EPS", "PRESETS", "STRIDES", "Decoder", "FeatureOptions", "Order",
    "PixelTransformer", "SamplingOptions", "Transformations", "TransformerConfig", "attend_in_blocks", "check_families",
    "check_layers", "check_shape", "condition_names", "covering_masks", "draw_mask", "draw_rows", "forward_operations",
    "generate", "infill", "inverse_order", "majority_vote", "masked_pixel_loss", "next_pixel_loss", "parameter_count",
    "pixel_loss", "pixel_nll", "pixel_order", "pooling", "resize_positions", "resized_bias", "rows_of", "sample",
    "slices_of", "transform", "transformations", "with_preset", "with_slices",
]  # fmt: skip
