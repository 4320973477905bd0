"""`preset: L` in place of the sizes of a transformer, in configs and on the command line; sizes that are left out.

A preset is replaced before the parser sees it, so that a run's config.yaml holds the sizes themselves.
"""

import json
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from igpt.model import with_preset

FOLLOWING = ("n_positions", "vocab_size")  # of the data's resolution, and of the palette: `igpt.runs` fills them in
read_yaml = get_loader("yaml")  # to which 1e-3 is a number


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, with the presets of transformers replaced by their sizes."""
    return _expand(read_yaml(text))


set_loader("yaml", load_yaml, (yaml.YAMLError,))


def expand_words(words: list[str]) -> list[str]:
    """A command line with `--PATH.transformer.preset L` as an option for each size; what comes later wins as ever."""
    expanded: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option.endswith(".transformer.preset") and (equals or rest):
            sizes = with_preset({"preset": value if equals else rest.pop(0)})
            expanded += [
                f"{option.removesuffix('preset')}{name}={size}" for name, size in sizes.items() if name not in FOLLOWING
            ]
        elif option.endswith(".transformer") and (equals or rest):
            expanded.append(f"{option}={_expanded_text(value if equals else rest.pop(0))}")
        else:
            expanded.append(word)
    return expanded


def _expanded_text(text: str) -> str:
    if not text.lstrip().startswith("{"):  # a file
        return text
    return json.dumps(_expand({"transformer": read_yaml(text)})["transformer"])


def _expand(value: Any) -> Any:
    if isinstance(value, list):
        return [_expand(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _whole(inner) if key == "transformer" and isinstance(inner, dict) else _expand(inner)
        for key, inner in value.items()
    }


def _whole(transformer: dict[str, Any]) -> dict[str, Any]:
    """A transformer's fields; 0 for those that follow from palette and data, where they are left out."""
    return with_preset(transformer) | {name: transformer.get(name, 0) for name in FOLLOWING}
