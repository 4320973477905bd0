"""Where Python looks for modules: not in the current folder, which may hold anybody's files.

Imported before anything else, and so with nothing that Python has not imported itself.
"""

import os
import sys


def leave_out_current_folder() -> None:
    """Undo what `python -m` has done to the search path of this process."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return
    if not sys.flags.safe_path and sys.path[:1] in ([""], [here]):
        del sys.path[0]


def keep_it_out() -> None:
    """Have no process that this one starts look there, whoever starts it: `tune`, Lightning, loaders, torch.compile."""
    os.environ["PYTHONSAFEPATH"] = "1"
