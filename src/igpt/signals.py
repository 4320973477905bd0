"""The signals by which a scheduler asks a run to end (standard library only)."""

import signal

ASKED_TO_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Those of them that this system has: Windows knows no SIGUSR1."""
