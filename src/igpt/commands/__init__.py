"""The verbs that are plain typed functions: signature and docstring are the options and the help."""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

# The option that bare words after the verb belong to.
WORDS = {
    "classify": "files",
    "completion": "shell",
    "embed": "files",
    "init": "folder",
    "report": "runs",
    "runs": "folder",
    "surprise": "files",
}
# Where a verb's function is, if not in a file of its name.
PLACES = {"embed": "classify.embed", "import": "import_.import_", "surprise": "sample.surprise"}
PLACES |= {
    verb: f"before.{verb}.{verb}"
    for verb in ("check", "completion", "configs", "curate", "init", "palette", "tokenize")
}
PLACES |= {verb: f"after.{verb}.{verb}" for verb in ("evaluate", "scale", "show")}


def function_of(verb: str) -> Callable[..., Any]:
    """The function of a verb, imported only now."""
    module, _, name = PLACES.get(verb, f"{verb}.{verb}").rpartition(".")
    function: Callable[..., Any] = getattr(import_module(f"igpt.commands.{module}"), name)
    return function


def run(verb: str, arguments: list[str]) -> None:
    """Parse `arguments` for the function of `verb` and call it.

    Raises:
        UserError: an option is unknown or its value is off.
    """
    from igpt.checkpoints import find_checkpoint
    from igpt.parsing import CommandParser, arrange, invoked, renamed
    from igpt.system import load_plugins

    load_plugins()
    invoked(verb, arguments)
    function = function_of(verb)
    usage = f"%(prog)s {WORDS[verb].upper()} [...] [options]" if verb in WORDS else "%(prog)s [options]"
    parser = CommandParser(prog=f"igpt {verb}", usage=usage, description=(function.__doc__ or "").split("\n\n")[0])
    own_config = "config" in signature(function).parameters  # `tune` takes a config of `fit`, not one of its own
    if not own_config:
        parser.add_argument("-c", "--config", action="config", help="YAML file with values for these options.")
    parser.add_function_arguments(function, as_group=False, sub_configs=False)
    words = arrange(renamed(arguments, "--ckpt"), function, WORDS.get(verb))
    values = parser.instantiate(parser.parse_args(words))
    if values.get("ckpt") is not None:
        values.ckpt = str(find_checkpoint(values.ckpt))
    if not own_config:
        values.pop("config", None)
    function(**vars(values))
