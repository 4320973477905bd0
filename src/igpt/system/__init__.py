"""The operating system and this machine: files, locks, streams, plug-ins, hardware.

Importing it imports the standard library (and filelock) alone, so that `igpt` starts quickly: whatever needs torch
imports it inside a function.
"""

from igpt.system.errors import LOST, UserError, UserErrors, last_line
from igpt.system.files import (
    atomic_folder,
    atomic_path,
    check_not_read,
    check_own,
    digest_of,
    final_name,
    lies_in,
    link_last,
    move_aside,
    partial_path,
    remove,
    remove_folder,
    remove_own,
    remove_partial,
    replacing,
    same_file,
    sha256_of,
    sync,
    take_place,
)
from igpt.system.hardware import (
    ACCELERATORS,
    BF16_PEAKS,
    BLOCKTIME,
    SPINS,
    Compute,
    Precision,
    allow_tf32,
    bf16_peak,
    compute_of,
    cpu_kind,
    fall_back_to_cpu,
    free_memory,
    has_onednn,
    keep_freed_memory,
    wait_briefly,
)
from igpt.system.locks import check_unread, in_turn, only_writer, reader
from igpt.system.plugins import (
    ALLOW,
    ALLOWED,
    SOURCES,
    allowed_imports,
    library,
    load_plugins,
    packages,
    registered,
    split_allowed,
)
from igpt.system.shipped import find_config, find_palette, shipped, shipped_configs, with_configs_found
from igpt.system.sources import dataclasses_in, names_in, parameters
from igpt.system.terminal import (
    ASKED_TO_END,
    OutputError,
    Progress,
    Shown,
    clock,
    complain,
    in_one_line,
    lose_output,
    open_closed_streams,
    percent,
    with_progress,
)
from igpt.system.verbs import TRAINER_VERBS, VERBS

__all__ = [
    "ACCELERATORS", "ALLOW", "ALLOWED", "ASKED_TO_END", "BF16_PEAKS", "BLOCKTIME", "LOST", "SOURCES", "SPINS",
    "TRAINER_VERBS", "VERBS", "Compute", "OutputError", "Precision", "Progress", "Shown", "UserError", "UserErrors",
    "allow_tf32",
    "allowed_imports", "atomic_folder", "atomic_path", "bf16_peak", "check_not_read", "check_own", "check_unread",
    "clock", "complain", "compute_of", "cpu_kind", "dataclasses_in", "digest_of", "fall_back_to_cpu", "final_name",
    "find_config", "find_palette", "free_memory", "has_onednn", "in_one_line", "in_turn", "keep_freed_memory",
    "last_line", "library", "lies_in", "link_last", "load_plugins", "lose_output", "move_aside", "names_in",
    "only_writer", "open_closed_streams", "packages", "parameters", "partial_path", "percent", "reader", "registered",
    "remove", "remove_folder", "remove_own", "remove_partial", "replacing", "same_file", "sha256_of", "shipped",
    "shipped_configs", "split_allowed", "sync", "take_place", "wait_briefly", "with_configs_found", "with_progress",
]  # fmt: skip
