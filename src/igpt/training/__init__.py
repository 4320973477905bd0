"""What surrounds an optimizer step: learning-rate schedule, FSDP, checkpoint writing."""

from igpt.training.device import check_seed, is_main_process, quiet_trainer, ready
from igpt.training.fsdp import shard
from igpt.training.log_points import at_log_point, forget_logged
from igpt.training.saving import WholeCheckpoints
from igpt.training.schedule import warmup_constant, warmup_cosine

__all__ = [
    "WholeCheckpoints", "at_log_point", "check_seed", "forget_logged", "is_main_process", "quiet_trainer", "ready",
    "shard", "warmup_constant", "warmup_cosine",
]  # fmt: skip
