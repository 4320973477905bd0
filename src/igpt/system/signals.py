"""The signals that ask a run to end in good order (standard library only)."""

import signal

ASKED_TO_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""From a scheduler or, as Ctrl-C, from the keyboard; those of them that this system has: Windows knows no SIGUSR1."""
