"""`python -m igpt.attached VERB ...`: a verb that ends when the process that started it has ended.

Whoever starts it holds the other end of its standard input and never writes. However that process ends, the system
closes the pipe; this needs no signal, and is the same on every system.
"""

from igpt.search_path import leave_out_current_folder

leave_out_current_folder()

import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

from igpt.cli import main  # noqa: E402


def end_with_input() -> None:
    """Wait until standard input is closed, then end this process at once."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main())
