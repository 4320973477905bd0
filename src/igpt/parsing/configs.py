"""A config file is looked at before it is parsed: what YAML lets pass in silence is one line."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from igpt.system import UserError

LARGEST = 2**20  # bytes of a config
TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")))


@dataclass
class _Place:
    """A mapping or a list that has begun: a mapping's keys, and whether one is next."""

    anchor: str | None
    is_mapping: bool
    keys: set[str] = field(default_factory=set)
    at_key: bool = True


def config_name(path: str | Path) -> str:
    """Name of a config and its runs: its stem; in configs/ with the folder, as in cifar10_ar_small."""
    path = Path(path)
    folder = path.absolute().parent
    return f"{folder.name}_{path.stem}" if folder.parent.name == "configs" else path.stem


def check_config(path: str | Path) -> None:
    """Look at a config file; a pipe is left to whoever reads it.

    Raises:
        UserError: it is no UTF-8 text or no YAML, is too large, or gives a key twice.
    """
    path = Path(path)
    if not path.is_file():
        return
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"--config {path} is larger than a config can be; give a config of igpt")
        check_text(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path} is no UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} cannot be read: {' '.join(str(error).split())}; mend the file") from error


def check_text(text: str) -> None:
    """Raise a ValueError or YAMLError unless the text is one mapping that ends, with each key once and no tags."""
    places: list[_Place] = []
    done: set[str | None] = set()
    documents = 0
    for event in _events(text):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.NodeEvent) and not places:
            documents += 1
            if documents > 1 or not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it is not one mapping of options to values")
        if isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)):
            if event.tag not in TAGS:
                raise ValueError(f"line {line} has the tag {event.tag}, and a config holds plain values")
            if places and places[-1].is_mapping and places[-1].at_key:
                _check_key(places[-1], event, line)
        if isinstance(event, yaml.CollectionStartEvent):
            places.append(_Place(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            continue
        if isinstance(event, yaml.AliasEvent) and event.anchor not in done:
            raise ValueError(f"line {line}: *{event.anchor} stands for nothing, or for what it is a part of")
        if isinstance(event, yaml.CollectionEndEvent):
            done.add(places.pop().anchor)
        elif isinstance(event, yaml.ScalarEvent):
            done.add(event.anchor)
        elif not isinstance(event, yaml.AliasEvent):
            continue
        if places:
            places[-1].at_key = not places[-1].at_key
    if not documents:
        raise ValueError("it is empty")


def _events(text: str) -> Iterable[yaml.Event]:
    parsed: Iterable[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
    return parsed


def _check_key(place: _Place, event: yaml.Event, line: int) -> None:
    """Raise a ValueError for a key that is no word, or that the mapping has already."""
    if not isinstance(event, yaml.ScalarEvent):
        raise ValueError(f"line {line} has a key that is no word")
    if event.value in place.keys and event.value != "<<":
        raise ValueError(f"line {line} gives {event.value!r} a second time")
    place.keys.add(event.value)
