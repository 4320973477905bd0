"""What surrounds an optimizer step: optimizer and schedule, FSDP, checkpoint writing, Lightning's internals."""

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
from igpt.training.muon import Muon
from igpt.training.optimizers import make_optimizer, schedule_of, warmup_constant, warmup_cosine, warmup_stable_decay
from igpt.training.recipe import ADDED, Optimizer, Recipe, Schedule, written
from igpt.training.saving import WholeCheckpoints

__all__ = [
    "ADDED", "DummyExperiment", "Muon", "Optimizer", "PrecisionInput", "Recipe", "Schedule", "WholeCheckpoints",
    "apply_fsdp", "at_log_point", "check_seed", "disable_rich", "disable_sigterm_broadcast", "dump_checkpoint",
    "epoch_ends", "forget_logged", "is_accumulating", "is_main_process", "log_at", "make_optimizer", "normalise_loops",
    "quiet_trainer", "ready", "run_validation", "saves_sharded", "schedule_of", "trainer_of", "validation_is_due",
    "warmup_constant", "warmup_cosine", "warmup_stable_decay", "written",
]  # fmt: skip
