"""Paths and names of a command line, looked at before torch is imported: what is misspelt is said within a second.

Only what is certain is refused here. Whatever cannot be told from source files is left to the parser.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from igpt.commands import PLACES
from igpt.system import UserError, dataclasses_in, find_config, names_in, packages, parameters, registered

TRAINER = "igpt.runs.trainer.Trainer"
GROUPS = {"trainer": TRAINER, "checkpoint": "igpt.callbacks.StepCheckpoint", "samples": "igpt.callbacks.SampleGrid"}
MODELS = ("Autoregressive", "BERT", "ByteAutoregressive", "CoarseToFine", "Joint")  # of `igpt.modules`
STUDIES = ("tune", "scale")  # verbs of many trainings, whose config is one of `fit`
CHOSEN = ("model", "data")  # options that name a class
ALWAYS = {"config", "ckpt", "ckpt_path", "ckpt-path", "help", "print_config"}
OF_TRAINER = {"seed_everything", "name", "runs_dir", "tf32", "schedule", *GROUPS, *CHOSEN}
NOT_OFFERED = {"train_dataloaders", "val_dataloaders", "dataloaders", "datamodule"}
SHORT = {"trainer.callbacks": "callbacks", "trainer.logger": "loggers"}  # Lightning's modules of classes for these
EXTRA = {"transformer": {"preset"}}  # keys that stand for others; so does `recipe` in what has an optimizer
SPEC = {"class_path", "init_args", "dict_kwargs"}
DEEPEST = 8  # classes within classes


def check_names(verb: str, words: Sequence[str], trainer: bool) -> None:
    """Raise a UserError for a checkpoint that is not there, an unknown option or a class that does not exist.

    Args:
        verb: of the command line.
        words: that follow it.
        trainer: whether it is one of Lightning's verbs.
    """
    given = list(options_of(words))
    if any(name in ("help", "h") or name.endswith(".help") for name, _ in given):
        return
    check = Check(verb, trainer)
    for name, value in given:  # configs first: an option may belong to a class that only they name
        if name == "config" and value:
            check.config(find_config(value))
    for name, value in given:
        if (key := name.removesuffix(".class_path")) in (*CHOSEN, *SHORT):
            check.choose(key, value)
    for name, _ in given:
        check.option(name)
    for name, value in given:
        if name.replace("-", "_") in ("ckpt", "ckpt_path") and value not in (None, "null", "last"):
            check_checkpoint(str(value))


def options_of(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Names of the options of a command line, without dashes in front, each with the word that is its value."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word.startswith("--") or word in ("-c", "-h"):
            following = words[number + 1] if number + 1 < len(words) else None
            after = value if equals else None if str(following).startswith("--") else following
            yield {"-c": "config", "-h": "help"}.get(name, name.removeprefix("--").removesuffix("+")), after


class Check:
    """The check of one command line, which knows the classes that it has come across."""

    def __init__(self, verb: str, trainer: bool) -> None:
        self.verb, self.trainer = verb, trainer
        self.classes: dict[str, str] = {}  # full paths of the classes chosen for model and data
        own = trainer_options(verb) if trainer else parameters(f"igpt.commands.{PLACES.get(verb, f'{verb}.{verb}')}")
        self.keys = {*(trainer_options("fit") if verb in STUDIES else own or ()), *ALWAYS}  # of a config
        dashed = set[str]() if trainer else {name.replace("_", "-") for name in (own or ())}
        self.names = {*(own or ()), *ALWAYS, *dashed, *({"class"} if "classes" in (own or ()) else ())}
        self.groups = GROUPS if trainer or verb in STUDIES else {}

    def option(self, name: str) -> None:
        """Check the name of one option of the command line."""
        head, *rest = name.split(".")
        self.key(head, self.names)
        if rest and head in self.groups:
            self.key(rest[0], parameters(self.groups[head]), f"{head}.")
        elif head in self.classes:
            self.inside(self.classes[head], head, [key for key in rest if key not in SPEC])

    def config(self, file: str) -> None:
        """Check the keys of a config; one that cannot be read is left to who reports that with its line."""
        try:
            for key, value in mapping_in(file).items():
                self.key(key, self.keys)
                for inner in value if key in self.groups and isinstance(value, dict) else ():
                    self.key(str(inner), parameters(self.groups[key]), f"{key}.")
                self.value(key, value)
        except UserError as error:
            raise UserError(f"--config {file}: {error}") from error

    def value(self, key: str, value: Any, depth: int = 0) -> None:
        """Check the classes that a value of a config names, and the keys given for them."""
        if depth > DEEPEST or not isinstance(value, dict | list):
            return
        if isinstance(value, list) or not value.keys() & SPEC:
            for inner, held in value.items() if isinstance(value, dict) else (("", each) for each in value):
                self.value(f"{key}.{inner}".removesuffix("."), held, depth + 1)
            return
        path = self.choose(key, value["class_path"]) if "class_path" in value else self.classes.get(key)
        if path and (odd := value.keys() - SPEC):
            raise UserError(f"{key}.{min(odd)} is no option; what a class takes stands below {key}.init_args")
        arguments = value.get("init_args")
        for inner, held in arguments.items() if isinstance(arguments, dict) else ():
            fields = held if isinstance(held, dict) and not held.keys() & SPEC else {}
            for keys in ([inner], *([inner, field] for field in fields)):
                self.inside(path, key, list(map(str, keys)))
            self.value(f"{key}.{inner}", held, depth + 1)

    def inside(self, path: str | None, holder: str, keys: Sequence[str]) -> None:
        """Check a key of a class, and what follows where it is a dataclass."""
        known = parameters(path) if path else None
        if not path or not known or not keys:
            return
        listed = f"--{holder}.help {path.rpartition('.')[2] if holder in CHOSEN else path}"
        self.key(keys[0], {*known, *(("recipe",) if "optimizer" in known else ())}, f"{holder}.", listed)
        for fields in dataclasses_in(*known[keys[0]]) if len(keys) > 1 and keys[0] in known else ():
            self.key(keys[1], {*(parameters(fields) or ()), *EXTRA.get(keys[0], ())}, f"{holder}.{keys[0]}.", listed)

    def choose(self, key: str, name: str | None) -> str | None:
        """The full path of a class, which is remembered for `model` and `data`; None where it cannot be told."""
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", name):  # a file, or a mapping
            return None
        short = short_names(key)
        path = name if "." in name else short.get(name)
        module, _, own = (path or "").rpartition(".")
        known = names_in(module) if module.partition(".")[0] in packages() | {"igpt", "lightning"} else []
        near = nearest(own or name, known or ([] if path else short))
        if (near and not path) or (known and own not in known):
            hint = f"did you mean {near}? " if near else ""
            offer = f"choose from {', '.join(sorted(short))}, or " if key in CHOSEN else ""
            raise UserError(f"--{key}: there is no class '{name}'; {hint}{offer}give the full path of a class")
        if path and key in CHOSEN:
            self.classes[key] = path
        return path

    def key(self, name: str, known: Iterable[str] | None, start: str = "", listed: str = "--help=all") -> None:
        """Raise a UserError with the name that was probably meant, unless the one given is known."""
        if known is not None and name not in known:
            near = nearest(name, known)
            hint = f"did you mean --{start}{near}? " if near else ""
            raise UserError(f"--{start}{name} is no option; {hint}'igpt {self.verb} {listed}' lists them")


def trainer_options(verb: str) -> set[str]:
    """First parts of the options of one of Lightning's verbs."""
    own = {"rgb"} if verb == "test" else set()
    return {*(parameters(TRAINER, verb) or ()), *OF_TRAINER, *own} - NOT_OFFERED


def short_names(key: str) -> Mapping[str, str]:
    """Full paths of the classes that the command line takes by their names alone."""
    if key == "data":
        return {point.name: f"{point.module}.{point.attr}" for point in registered()}
    if key == "model":
        return {name: f"igpt.modules.{name}" for name in MODELS}
    modules = [f"lightning.pytorch.{SHORT[key]}", "igpt.callbacks"] if key in SHORT else []
    return {name: f"{module}.{name}" for module in modules for name in names_in(module)}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant, if one is near."""
    lower = {each.lower(): each for each in sorted(known, key=len)}
    typed = name.lower().replace("-", "_")
    within = [each for each in lower if typed in each and len(typed) > 3]
    found = within or difflib.get_close_matches(typed, lower, n=1, cutoff=0.6)
    return lower[found[0]] if found else None


def mapping_in(file: str) -> dict[str, Any]:
    """A config's content; empty where it is no mapping of words to plain values."""
    import yaml

    try:
        text = Path(file).read_text(encoding="utf-8-sig") if os.path.isfile(file) else ""
        content = yaml.safe_load(text) if len(text) < 2**20 else None
        json.dumps(content, default=str)  # fails where an alias holds itself
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) and all(isinstance(key, str) for key in content) else {}


def check_checkpoint(name: str) -> None:
    """Raise a UserError where neither a path nor a run's name stands for anything; the nearest run is named."""
    if os.path.lexists(name) or os.path.isdir(os.path.join("runs", name)):
        return
    runs = os.listdir("runs") if os.path.isdir("runs") else []
    near = nearest(next((part for part in Path(name).parts if part in runs), Path(name).name), runs)
    hint = f"did you mean the run {near}? " if near else ""
    raise UserError(f"checkpoint {name} does not exist; {hint}give a .ckpt file, or the folder or name of a run")
