"""The `igpt` command: finds the verb with the standard library alone, and imports only what that verb needs.

Exit codes: 0 done; 2 the user's words or files are off (one line, no traceback); 1 anything else; 130 interrupted; 143
ended by SIGTERM; 75 `fit` was asked to stop, has saved and can go on; 76 `LossGuard` stopped `fit`
(docs/preemption.md).
`--debug` anywhere shows the traceback.
"""

import difflib
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn, TextIO

from igpt import __version__
from igpt.errors import UserError, UserErrors
from igpt.hardware import fall_back_to_cpu, wait_briefly
from igpt.signals import ASKED_TO_END

VERBS = {
    "palette": "build a colour palette from the training pixels of any data module",
    "check": "read every image of any data module once, and list what is broken",
    "tokenize": "write any data module's images as palette tokens, to train from",
    "fit": "train a model from a config",
    "tune": "try learning rates in turn, and write the config with the best",
    "validate": "loss on the validation split",
    "test": "loss on the test split",
    "predict": "write features of every layer for every split",
    "probe": "accuracy of the features of every layer",
    "sample": "draw new images, or complete given ones",
    "surprise": "a picture of how surprising each pixel is",
    "import": "make a checkpoint from released weights",
    "export": "write a checkpoint for Hugging Face, or as safetensors",
    "report": "one page of runs beside the published figures",
}
TRAINER_VERBS = ("fit", "validate", "test", "predict")


def help_text() -> str:
    """What `igpt --help` prints."""
    verbs = "\n".join(f"  {name:10}{text}" for name, text in VERBS.items())
    return (
        "igpt: generative pre-training from pixels\n\n"
        f"usage: igpt VERB [options]\n\nverbs:\n{verbs}\n\n"
        "  igpt VERB --help    the options of a verb\n"
        "  igpt --version      the version\n"
        "  --debug             anywhere: show the traceback of an error\n\n"
        "everyday:\n"
        "  igpt fit --config configs/digits_ar.yaml\n"
        "  igpt probe --ckpt runs/digits_ar/checkpoints/last.ckpt\n"
        "  igpt sample --ckpt runs/digits_ar/checkpoints/last.ckpt --num 16 --out samples.png\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        print(f"igpt {__version__}")
        return 0
    if verb not in VERBS:
        return complain(f"igpt: {unknown(verb)}")
    earlier = {number: signal.getsignal(number) for number in ASKED_TO_END}
    try:
        wait_briefly()
        fall_back_to_cpu()
        quiet()
        end_on_sigterm(verb)
        runner(verb)(rest)
        return 0
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if debug and isinstance(error, Exception):
            raise
        return explained(error, verb, rest)
    finally:
        if in_main_thread():
            for number, handler in earlier.items():
                signal.signal(number, handler)


def explained(error: BaseException, verb: str, words: Sequence[str]) -> int:
    """Say in a line or a few why a command ended, and return its exit code.

    Args:
        error: what ended it: an exit, an interrupt or an error.
        verb: the command.
        words: the rest of its command line.
    """
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        return int(error.code or 0)
    if isinstance(error, SystemExit | KeyboardInterrupt):  # Lightning's trainer leaves an interrupt by exit(1)
        return complain(f"igpt {verb}: interrupted", 130)
    if isinstance(error, UserError):
        return complain("\n".join(f"igpt {verb}: {line}" for line in lines_of(error)))
    if isinstance(error, OSError) and was_given(error.filename, words):  # what no command has words of its own for
        problem = printable(f"{error.filename}: {error.strerror or error}")
        return complain(f"igpt {verb}: {problem}; name another file or folder")
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for options that do not go together
        return complain(f"igpt {verb}: {printable(' '.join(str(error).split()))}")
    text = printable(f"{type(error).__name__}: {error}".strip().splitlines()[0])
    return complain(f"igpt {verb}: {text} (run again with --debug for the traceback)", 1)


def in_main_thread() -> bool:
    """Whether this may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


def end_on_sigterm(verb: str) -> None:
    """Have SIGTERM end the command like an error does, so that what is half-written is removed.

    Lightning would note it and go on; `fit` puts its own handler in place once there is something to save.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # removing must not be interrupted by another
        raise SystemExit(complain(f"igpt {verb}: ended by SIGTERM", 128 + number))

    if in_main_thread():
        signal.signal(signal.SIGTERM, end)


def was_given(name: object, words: Sequence[str]) -> bool:
    """Whether the command line names this path, something below it, or a folder that it lies in.

    Any other file that cannot be opened is a fault of the program, not of the user's words.
    """
    if not isinstance(name, str):
        return False
    path, here = folder_of(name), folder_of("")
    for word in words:
        for part in {word, *re.split(r"[=,\s\[\]]+", word)} - {""}:
            place = folder_of(part)
            below = place.startswith(path) and not here.startswith(path)
            if below or path.startswith(place):
                return True
    return False


def folder_of(name: str) -> str:
    """A path as all that lies below it begins."""
    return os.path.join(os.path.abspath(name), "")


def lines_of(error: UserError) -> list[str]:
    """The lines to show; of one that a loader's worker process raised, the message without the worker's traceback."""
    lines = str(error).splitlines()
    if lines and lines[0].startswith("Caught "):
        lines = [lines[-1].partition("UserError: ")[2] or lines[-1]]
    elif not isinstance(error, UserErrors):
        lines = [" ".join(lines)]  # a file's name may hold a line break
    return [printable(line) for line in lines]


def printable(line: str) -> str:
    """A line without the characters, from names inside strangers' files, that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def unknown(verb: str) -> str:
    """The line for a verb that does not exist."""
    near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(VERBS)}"
    return f"there is no verb '{verb}'; {hint}"


def complain(text: str, code: int = 2) -> int:
    """Print to stderr and return the exit code."""
    print(text, file=sys.stderr)
    return code


def runner(verb: str) -> Callable[[list[str]], object]:
    """The function that takes the rest of the command line, imported only now."""
    if verb in TRAINER_VERBS:
        run: Callable[[str, list[str]], object] = import_module("igpt.commands.trainer").run
    else:
        run = import_module("igpt.commands").run
    return lambda rest: run(verb, rest)


def quiet() -> None:
    """Warnings as one line each; adverts and one deprecation inside the libraries are dropped, nothing else."""
    warnings.showwarning = one_line_warning
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
    adverts = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    adverts.addFilter(lambda record: "Tip:" not in record.getMessage())
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # bars of downloads; a run's own line is `ProgressLine`


def one_line_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Stand-in for `warnings.showwarning`."""
    print(f"igpt: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
