"""`python -m igpt.attached VERB ...`: a verb that ends when the process that started it has ended.

Whoever starts it holds the other end of its standard input and never writes. However that process ends, the system
closes the pipe; this needs no signal, and is the same on every system.
"""

import os
import sys
import threading

from igpt.cli import main


def end_with_input() -> None:
    """Wait until standard input is closed, then end this process at once."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main())
