"""What surrounds an optimizer step: learning-rate schedule, FSDP, checkpoint writing, Lightning's internals."""

from igpt.training.device import check_seed, is_main_process, quiet_trainer, ready
from igpt.training.fsdp import apply_fsdp
from igpt.training.lightning_internals import (
    PrecisionInput,
    SilentExperiment,
    at_log_point,
    checkpoint_content,
    epoch_ends,
    forget_logged,
    is_accumulating,
    saves_sharded,
    settle_loops,
    share_no_sigterm,
    trainer_of,
    validate_now,
    validation_is_due,
    write_plainly,
)
from igpt.training.optimizers import warmup_constant, warmup_cosine
from igpt.training.saving import WholeCheckpoints

__all__ = [
    "PrecisionInput", "SilentExperiment", "WholeCheckpoints", "apply_fsdp", "at_log_point", "check_seed",
    "checkpoint_content", "epoch_ends", "forget_logged", "is_accumulating", "is_main_process", "quiet_trainer",
    "ready", "saves_sharded", "settle_loops", "share_no_sigterm", "trainer_of", "validate_now", "validation_is_due",
    "warmup_constant", "warmup_cosine", "write_plainly",
]  # fmt: skip
