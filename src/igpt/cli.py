"""The `igpt` command: finds the verb with the standard library alone, and imports only what that verb needs.

Exit codes: 0 done; 2 the user's words or files are off (one line, no traceback); 1 anything else; 130 interrupted; 143
ended by SIGTERM; 141 nobody reads the output any more; 75 `fit` was asked to stop, has saved and can go on; 76
`LossGuard` stopped `fit` (docs/preemption.md). `--debug` anywhere shows the traceback.
"""

import difflib
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from igpt import __version__
from igpt.system import (
    ALLOWED,
    ASKED_TO_END,
    TRAINER_VERBS,
    VERBS,
    OutputError,
    Shown,
    UserError,
    UserErrors,
    complain,
    fall_back_to_cpu,
    final_name,
    in_one_line,
    lose_output,
    open_closed_streams,
    split_allowed,
    wait_briefly,
    with_configs_found,
)

# Loggers of Lightning's: tips, which TPUs there are not, numbers of GPUs, the seed. Of the rest nothing is silenced.
TALKATIVE = ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.seed")
NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}


def help_text() -> str:
    """What `igpt --help` prints."""
    verbs = "\n".join(f"  {name:11}{text}" for name, text in VERBS.items())
    return (
        "igpt: generative pre-training from pixels\n\n"
        f"usage: igpt VERB [options]\n\nverbs:\n{verbs}\n\n"
        "  igpt VERB --help    the options of a verb; --help=all of fit and the like shows the rare ones, too\n"
        "  igpt --version      the version\n"
        "  --debug             anywhere: show the traceback of an error\n"
        "  --allow-imports M   anywhere: let configs name classes of the module M\n\n"
        "everyday:\n"
        "  igpt fit --config digits_ar\n"
        "  igpt probe --ckpt digits_ar\n"
        "  igpt sample --ckpt digits_ar --num 16 --out samples.png\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    if argv is None:
        os.environ["PYTHONSAFEPATH"] = "1"  # no process that this one starts looks for modules in the current folder
        open_closed_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    stream = sys.stdout
    with redirect_stdout(cast(TextIO, Shown(stream))):
        try:
            code = run(arguments)
            sys.stdout.flush()
        except OutputError as error:
            return lose_output(stream, error.__cause__)
    return code


def run(arguments: list[str]) -> int:
    """Run one command line; an `OutputError` of what it prints is raised."""
    debug = "--debug" in arguments
    if arguments[:1] == ["help"] and len(arguments) == 2:
        arguments = [arguments[1], "--help"]
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        print(f"igpt {__version__}")
        return 0
    if verb not in VERBS:
        return complain(f"igpt: {in_one_line(unknown(verb))}")
    handlers = {number: signal.getsignal(number) for number in ASKED_TO_END}
    allowed = os.environ.get(ALLOWED, "")
    try:
        os.environ[ALLOWED] = " ".join([allowed, *split_allowed(rest)[1]])  # commands that this one starts inherit it
        check_surroundings(rest)
        check_names(verb, with_configs_found(split_allowed(rest)[0]))
        wait_briefly()
        fall_back_to_cpu()
        quiet()
        end_on_sigterm(verb)
        runner(verb)(rest)
        return 0
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, OutputError) or (debug and isinstance(error, Exception)):
            raise
        return explained(error, verb)
    finally:
        os.environ[ALLOWED] = allowed
        if in_main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def check_surroundings(words: Sequence[str]) -> None:
    """Raise a UserError for a folder that is gone, or words that no config or record, being UTF-8, could hold."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the current folder is not there any more; change to one that is") from error
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word} has bytes that are not UTF-8; rename the file, or fix the option")


def explained(error: BaseException, verb: str) -> int:
    """Say in a line or a few why a command was ended by an exit, an interrupt or an error; returns its exit code."""
    start = f"igpt {verb}: "
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        return complain(start + in_one_line(str(error.code)), 1)  # words, as a plug-in may leave with
    if isinstance(error, SystemExit | KeyboardInterrupt):  # Lightning's trainer leaves an interrupt by exit(1)
        return complain(f"{start}interrupted", 130)
    if isinstance(error, UserError):
        return complain("\n".join(start + line for line in lines_of(error)))
    if isinstance(error, OSError) and (problem := of_a_file(error)):
        return complain(start + in_one_line(problem))
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for options that do not go together
        return complain(start + in_one_line(" ".join(str(error).split())))
    text = in_one_line(f"{type(error).__name__}: {error}".strip().splitlines()[0])
    return complain(f"{start}{text} (run again with --debug for the traceback)", 1)


def of_a_file(error: OSError) -> str | None:
    """What the operating system says about a file or its disk; None where the error is about neither."""
    named = isinstance(error.filename, str | bytes)
    full = error.errno in NO_ROOM or "requested and" in str(error)  # NumPy counts what it could not write
    if not (named or full):
        return None
    name = final_name(os.fsdecode(error.filename)) if named else "the disk"
    advice = "make room, or write to another disk" if full else "name another file or folder"
    return f"{name}: {error.strerror or error}; {advice}"


def in_main_thread() -> bool:
    """Whether this may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


def end_on_sigterm(verb: str) -> None:
    """Have SIGTERM end the command like an error, so that half-written files go; `fit` later sets its own handler."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # removing must not be interrupted by another
        raise SystemExit(complain(f"igpt {verb}: ended by SIGTERM", 128 + number))

    if in_main_thread():
        signal.signal(signal.SIGTERM, end)


def lines_of(error: UserError) -> list[str]:
    """The lines to show; of one that a loader's worker process raised, the message without the worker's traceback."""
    lines = str(error).splitlines()
    if lines and lines[0].startswith("Caught "):
        lines = [lines[-1].partition("UserError: ")[2] or lines[-1]]
    elif not isinstance(error, UserErrors):
        lines = [" ".join(lines)]  # a file's name may hold a line break
    return [in_one_line(final_name(line)) for line in lines]


def unknown(verb: str) -> str:
    """The line for a verb that does not exist."""
    near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(VERBS)}"
    return f"there is no verb '{verb}'; {hint}"


def check_names(verb: str, words: Sequence[str]) -> None:
    """Refuse what is misspelt before torch is imported, which takes seconds."""
    import_module("igpt.commands.precheck").check_names(verb, words, verb in TRAINER_VERBS)


def runner(verb: str) -> Callable[[list[str]], object]:
    """The function that takes the rest of the command line, imported only now."""
    module = import_module("igpt.runs.trainer" if verb in TRAINER_VERBS else "igpt.commands")
    return partial(module.run, verb)


def quiet() -> None:
    """Warnings as one line each; what Lightning tells of itself and three warnings of no use are dropped."""
    warnings.showwarning = one_line_warning
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers")  # also where images lie in memory
    warnings.filterwarnings("ignore", message=r"Precision .* is not supported by the model summary")
    for name in TALKATIVE:
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # bars of downloads; a run's own line is `ProgressLine`


def one_line_warning(message: Warning | str, *_: Any, file: TextIO | None = None, **__: Any) -> None:
    """Stand-in for `warnings.showwarning`."""
    print(f"igpt: warning: {in_one_line(' '.join(str(message).split()))}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
