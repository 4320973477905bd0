"""Checkpoint files: read, write, verify; whole or sharded."""

from igpt.checkpoints.finding import find_checkpoint, is_run, read_probe_record
from igpt.checkpoints.format import (
    CHECKPOINT_KEY,
    LAST,
    META,
    check_finite,
    checksum_of,
    is_intact,
    move_checkpoint,
    newest_intact,
    original,
    read_checkpoint,
    remove_checkpoint,
    step_checkpoints,
    step_path,
    to_one_file,
    write_checkpoint,
    write_sums,
)
from igpt.checkpoints.sharded import check_sums, read_meta, read_sharded, weights_of
from igpt.checkpoints.spec import build, header_of, plain, spec_of, weights_sha256

__all__ = [
    "CHECKPOINT_KEY", "LAST", "META", "build", "check_finite", "check_sums", "checksum_of", "find_checkpoint",
    "header_of", "is_intact", "is_run", "move_checkpoint", "newest_intact", "original", "plain", "read_checkpoint",
    "read_meta", "read_probe_record", "read_sharded", "remove_checkpoint", "spec_of", "step_checkpoints", "step_path",
    "to_one_file", "weights_of", "weights_sha256", "write_checkpoint", "write_sums",
]  # fmt: skip
