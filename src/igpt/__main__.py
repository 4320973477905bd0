"""`python -m igpt` is the `igpt` command; `python -m igpt --attached VERB ...` ends when whoever started it has ended.

The starter of an attached command holds the other end of its standard input, which the system closes however it ends.
"""

import os
import sys


def leave_out_current_folder() -> None:
    """Undo what `python -m` did to the search path: the current folder may hold anybody's files."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return
    if not sys.flags.safe_path and sys.path[:1] in ([""], [here]):
        del sys.path[0]


def end_with_input() -> None:
    """Wait until standard input is closed, then end this process at once."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Run the command, attached or not; returns its exit code."""
    leave_out_current_folder()
    import threading

    from igpt.cli import main

    if sys.argv[1:2] == ["--attached"]:
        del sys.argv[1]
        threading.Thread(target=end_with_input, daemon=True).start()
    return main()


if __name__ == "__main__":
    sys.exit(main())
