"""What igpt asks of the operating system: files, locks, signals, the terminal. Standard library alone."""

from igpt.system.allocator import keep_freed_memory
from igpt.system.errors import LOST, UserError, UserErrors, last_line
from igpt.system.files import (
    atomic_folder,
    atomic_path,
    check_not_read,
    check_own,
    durable_path,
    final_name,
    lies_in,
    link_last,
    move_aside,
    partial_path,
    place_folder,
    remove_folder,
    remove_own,
    remove_partial,
    same_file,
    sha256_of,
    sync,
)
from igpt.system.hardware import (
    ACCELERATORS,
    BLOCKTIME,
    SPINS,
    Compute,
    Precision,
    allow_tf32,
    compute_of,
    cpu_kind,
    fall_back_to_cpu,
    has_onednn,
    wait_briefly,
)
from igpt.system.locks import check_unread, in_turn, only_writer, reader
from igpt.system.plugins import ALLOW, ALLOWED, allowed_imports, load_plugins, packages, registered, split_allowed
from igpt.system.signals import ASKED_TO_END
from igpt.system.terminal import OutputError, Shown, complain, in_one_line, lose_output, open_closed_streams

__all__ = [
    "ACCELERATORS", "ALLOW", "ALLOWED", "ASKED_TO_END", "BLOCKTIME", "LOST", "SPINS", "Compute", "OutputError",
    "Precision", "Shown", "UserError", "UserErrors", "allow_tf32", "allowed_imports", "atomic_folder",
    "atomic_path", "check_not_read", "check_own", "check_unread", "complain", "compute_of", "cpu_kind",
    "durable_path", "fall_back_to_cpu", "final_name", "has_onednn", "in_one_line", "in_turn", "keep_freed_memory",
    "last_line", "lies_in", "link_last", "load_plugins", "lose_output", "move_aside", "only_writer",
    "open_closed_streams", "packages", "partial_path", "place_folder", "reader", "registered", "remove_folder",
    "remove_own", "remove_partial", "same_file", "sha256_of", "split_allowed", "sync", "wait_briefly",
]  # fmt: skip
