"""What surrounds an optimizer step: learning-rate schedule, FSDP, checkpoint writing, Lightning's internals."""

from igpt.training.device import check_seed, is_main_process, quiet_trainer, ready
from igpt.training.fsdp import apply_fsdp
from igpt.training.lightning_internals import (
    DummyExperiment,
    PrecisionInput,
    at_log_point,
    disable_rich,
    disable_sigterm_broadcast,
    dump_checkpoint,
    epoch_ends,
    forget_logged,
    is_accumulating,
    log_at,
    normalise_loops,
    run_validation,
    saves_sharded,
    trainer_of,
    validation_is_due,
)
from igpt.training.optimizers import warmup_constant, warmup_cosine
from igpt.training.recipe import Recipe
from igpt.training.saving import WholeCheckpoints

__all__ = [
    "DummyExperiment", "PrecisionInput", "Recipe", "WholeCheckpoints", "apply_fsdp", "at_log_point", "check_seed",
    "disable_rich", "disable_sigterm_broadcast", "dump_checkpoint", "epoch_ends", "forget_logged", "is_accumulating",
    "is_main_process", "log_at", "normalise_loops", "quiet_trainer", "ready", "run_validation", "saves_sharded",
    "trainer_of", "validation_is_due", "warmup_constant", "warmup_cosine",
]  # fmt: skip
