"""One line for an option or class that does not exist: what was probably meant, and where the options are listed."""

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from igpt.system import registered

MODELS = ("BERT", "Autoregressive", "Joint")  # of `igpt.modules`
UNKNOWN = re.compile(  # the ways in which jsonargparse says that an option does not exist
    r"unrecognized arguments: --(?P<typed>[^\s=;]+)"
    r"|Option '(?P<option>[^']+)' is not accepted"
    r"|Group '(?P<group>[^']+)' does not accept option '(?P<member>[^']+)'"
    r"|Subcommand '\w+' does not accept option '(?P<nested>[^']+)'"
)
NO_CLASS = re.compile(r"Expected a dot import path string: (\S+?)(?:;|$)|Problem with given class_path '([^']+)'")


def of_typo(text: str, prog: str, options: Iterable[str]) -> str | None:
    """The line for a parser's message about a name that does not exist; None where it is about something else.

    Args:
        text: the message in one line; where it is about a class's options, it begins with `--model:` or `--data:`.
        prog: the command, such as igpt fit.
        options: what the command itself takes, with dashes.
    """
    holder = re.match(r"--(model|data)\b", text)
    if holder and (wrong := NO_CLASS.search(text)):
        return f"--{holder[1]}: {no_such_class(holder[1], wrong[1] or wrong[2])}"
    found = UNKNOWN.search(text)
    if found is None:
        return None
    name = found["typed"] or found["option"] or found["nested"] or f"{found['group']}.{found['member']}"
    if holder is None:
        return explained(name, {option.lstrip("-") for option in options}, f"{prog} --help")
    wrong_option = name.removeprefix("init_args.")
    known = {f"{holder[1]}.{option}" for kind in classes(holder[1]) for option in options_of(kind)}
    return explained(f"{holder[1]}.{wrong_option}", known, f"{prog} --{holder[1]}.help CLASS")


def explained(name: str, known: Iterable[str], listed: str) -> str:
    """The line for an option `name` that is not among the known ones."""
    start, dot, last = name.rpartition(".")
    beside = sorted({one.removeprefix(f"{start}{dot}") for one in known if one.rpartition(".")[0] == start}, key=len)
    near = [one for one in beside if last in one] or difflib.get_close_matches(last, beside, n=1, cutoff=0.65)
    hint = f"did you mean --{start}{dot}{near[0]}? " if near else ""
    return f"--{name} is no option; {hint}'{listed}' lists them"


def no_such_class(holder: str, name: str) -> str:
    """What to say of a class name that is not known, for a model or for data."""
    known = MODELS if holder == "model" else [point.name for point in registered()]
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.rpartition(".")[2].lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]}? " if near else ""
    return f"there is no class '{name}'; {hint}choose from {', '.join(known)}, or give the full path of a class"


def classes(holder: str) -> list[Any]:
    """The classes that a model's or data's options may be of."""
    import igpt

    return [getattr(igpt, name) for name in MODELS] if holder == "model" else [point.load() for point in registered()]


def options_of(kind: Any) -> list[str]:
    """Names of a class's arguments, with those of the dataclasses among them."""
    names = []
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        default, hint = parameter.default, parameter.annotation
        inner = (
            fields(default) if hasattr(default, "__dataclass_fields__") else getattr(hint, "__dataclass_fields__", ())
        )
        names += [name, *(f"{name}.{getattr(one, 'name', one)}" for one in inner)]
    return names
