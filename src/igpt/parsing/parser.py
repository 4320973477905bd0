"""The parser of every verb: options without abbreviations, errors in one line, and what was typed for the records."""

import json
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import Namespace, _paths, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from igpt.parsing.configs import check_config
from igpt.parsing.messages import not_installed, one_line
from igpt.parsing.presets import expand_words
from igpt.parsing.trusted import restrict_imports
from igpt.system import UserError, split_allowed, with_configs_found

set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning's import lets configs come over the network

# A config is UTF-8 also where the system's text is not (Windows); jsonargparse has no option for it.
_paths.open = partial(open, encoding="utf-8")  # type: ignore[attr-defined]

ALL = "--help=all"
# What `--help` shows of the two hundred options of Lightning's verbs, some in igpt's words; ALL shows the rest, too.
COMMON = dict.fromkeys(("help", "config", "name", "runs_dir", "schedule", "rgb", "model", "data", "samples.num")) | {
    "ckpt_path": "checkpoint, or the folder or name of a run; of fit, where to go on from; last is the run's own last",
    "seed_everything": "seed of all randomness",
    "trainer.max_steps": "optimizer steps",
    "trainer.max_epochs": "passes over the training images, if not max_steps",
    "trainer.precision": "auto, 32-true, bf16-mixed, 16-mixed, ...; auto is what is quickest here",
    "trainer.accelerator": "auto, cpu, gpu, cuda or mps",
    "trainer.devices": "number of processes, or which GPUs",
    "trainer.val_check_interval": "steps between validations, or a share of an epoch",
    "trainer.accumulate_grad_batches": "batches a step",
    "trainer.gradient_clip_val": "largest norm of the gradient",
    "checkpoint.every_n_train_steps": None,
}
GROUPS = ("trainer", "checkpoint", "samples")  # of options of the trainer's verbs
_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


class WordError(UserError, ValueError):
    """A word that does not fit; a ValueError too, to which jsonargparse adds the option of the class that it is for."""


class CommandParser(LightningArgumentParser):
    """jsonargparse's parser, with errors as `UserError`."""

    whole_help = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("usage", "%(prog)s [options]")
        super().__init__(*args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build the classes; the UserError of one of them is raised as it is, and a package that it lacks named."""
        try:
            return super().instantiate(*args, **kwargs)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError | ModuleNotFoundError):
                cause = cause.__cause__
            if isinstance(cause, ModuleNotFoundError):
                raise UserError(not_installed(cause, str(error))) from error
            raise cause or error from None

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        """The name that Lightning still calls `instantiate` by; jsonargparse warns about it."""
        return self.instantiate(cfg, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line; a group of options that a config gives a bare value is refused."""
        restrict_imports()
        words, _ = split_allowed(args[0])  # the launcher has noted which imports they allow
        CommandParser.whole_help |= ALL in words  # this also parses what follows the verb
        words = ["--help" if word == ALL else word for word in words]
        values = super().parse_args(expand_words(with_configs_found(words)), *args[1:], **kwargs)
        for part in (values, *(value for value in vars(values).values() if isinstance(value, Namespace))):
            for name in GROUPS if "trainer" in part else ():  # `igpt evaluate --samples` is no group
                if name in part and not isinstance(part[name], Namespace):
                    self.error(f"--{name} is {part[name]!r}, not a mapping of options to values")
            seed = part.get("seed_everything")
            if seed is not None and seed is not True and not 0 <= seed < 2**32:
                self.error(f"--seed_everything {seed} must lie between 0 and 2^32 - 1")
        return values

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a config file, once what YAML would let pass has been looked for."""
        check_config(path)
        try:
            return super().parse_path(path, *args, **kwargs)
        except WordError as error:
            start = "" if str(error).startswith("--config") else f"--config {path}: "
            raise WordError(f"{start}{error}") from error

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help; of Lightning's verbs the common options, unless `--help=all` was typed."""
        whole, CommandParser.whole_help = CommandParser.whole_help, False
        long = any(action.dest.startswith("trainer.") for action in self._actions)
        for action in self._actions if long else ():
            hidden = action.dest not in COMMON or any(name.endswith(".help") for name in action.option_strings)
            action.help = COMMON.get(action.dest) or (SUPPRESS if hidden and not whole else action.help)
        text = re.sub(r"(--\S+)((?: \S+)?), \1\+ \S+", r"\1\2", super().format_help(*args, **kwargs)).replace(
            " \x08[", "["
        )
        if word := re.match(r"usage: igpt \w+ ([A-Z]+) ", text):  # it stands without its option's name
            text = re.sub(rf"--{word[1].lower()} (\[ITEM,\.\.\.\]|{word[1]})", word[1], text)
        return text + ("" if whole or not long else f"\nall options: {self.prog.replace(' [options]', '')} {ALL}\n")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise WordError(one_line(message)) from ex


def invoked(verb: str, arguments: list[str]) -> None:
    """Remember what was typed."""
    _typed.set((verb, *arguments))


def command_line() -> str:
    """What was typed, quoted so that a shell takes it again; empty where a function was called from Python."""
    return shlex.join(["igpt", *_typed.get()]) if _typed.get() else ""


def arrange(arguments: list[str], function: Callable[..., Any], words: str | None) -> list[str]:
    """The command line as the parser takes it: dashes in names become underscores, words after a list option a list.

    Bare words, those with no option before them, belong to the option `words`, where the verb has one.
    """
    hints = {name: hint for name, hint in get_type_hints(function).items() if name != "return"}
    arranged, loose, rest = list[str](), list[str](), list(arguments)
    while rest:
        head = rest.pop(0)
        option, equals, value = head.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if words is not None and not is_option(head):
            loose.append(head)
        elif equals and option.startswith("--") and name in hints:
            arranged.append(f"--{name}={as_list([value], hints[name])[0] if is_list(hints[name]) else value}")
        elif not option.startswith("--") or name not in hints:
            arranged.append(head)
            if is_option(option) and not equals and rest and not is_option(rest[0]):
                arranged.append(rest.pop(0))
        else:
            count = next((i for i, word in enumerate(rest) if is_option(word)), len(rest))
            if hints[name] is bool and count == 0:  # a switch without a word is on
                arranged.append(f"--{name}=true")
                continue
            given = rest[: count if is_list(hints[name]) else 1]
            del rest[: len(given)]
            arranged += [f"--{name}", *(as_list(given, hints[name]) if is_list(hints[name]) else given)]
    if loose and words is not None:
        listed = is_list(hints[words])
        arranged += [f"--{words}", json.dumps(loose, ensure_ascii=False) if listed else " ".join(loose)]
    return arranged


def renamed(words: list[str], name: str) -> list[str]:
    """A command line that names the checkpoint by the option `name`, be it --ckpt, --ckpt_path or --ckpt-path.

    And --class is --classes: Python has no argument of that name.
    """
    for pattern, option in ((r"--ckpt([-_]path)?(?==|$)", name), (r"--class(?==|$)", "--classes")):
        words = [re.sub(pattern, option, word) if word.startswith("--") else word for word in words]
    return words


def is_option(word: str) -> bool:
    """Whether a word begins an option; negative numbers are values."""
    return word.startswith("-") and not re.match(r"-\.?\d", word)


def is_list(hint: Any) -> bool:
    """Whether a type is a list or a pair, or one of these or something else."""
    return any(get_origin(kind) in (list, tuple) for kind in (hint, *get_args(hint)))


def as_list(given: list[str], hint: Any) -> list[str]:
    """Words as one value that the parser reads as a list; what is written as a list already stays as it is."""
    number = int in get_args(hint) and get_origin(hint) is not list  # one number will do
    if not given or (len(given) == 1 and (number or re.fullmatch(r"\[.*\]", given[0], re.DOTALL))):
        return given
    numbers = any(set(get_args(kind)) == {int} for kind in (hint, *get_args(hint)))
    values = [int(word) if numbers and re.fullmatch(r"-?\d+", word) else word for word in given]
    return [json.dumps(values, ensure_ascii=False)]  # YAML cannot read what JSON escapes beyond 16 bits
