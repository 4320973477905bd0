"""Words that stand for others, in configs and on the command line; sizes that are left out.

`preset: L` stands for the sizes of a transformer, `recipe: modern` for the switches of a training (docs/recipes.md).
Both are replaced before the parser sees them, so that a run's config.yaml holds what they stand for.
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from igpt.model import with_preset
from igpt.system import UserError

FOLLOWING = ("n_positions", "vocab_size")  # of the data's resolution, and of the palette: `igpt.runs` fills them in
MODELS = ("model", "generative")  # keys of what has a recipe
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "learning_rate": 0.001,
        "optimizer": "adam",
        "schedule": "cosine",
        "transformer": {"positions": None, "qk_norm": None},
    },
    "modern": {
        "learning_rate": 0.02,
        "optimizer": "muon",
        "schedule": "wsd",
        "transformer": {"positions": "rope", "qk_norm": True},
    },
}
read_yaml = get_loader("yaml")  # to which 1e-3 is a number


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, with presets and recipes replaced by what they stand for."""
    return _expand(read_yaml(text))


set_loader("yaml", load_yaml, (yaml.YAMLError,))


def expand_words(words: list[str]) -> list[str]:
    """A command line with `--PATH.transformer.preset L` as an option for each size; what comes later wins as ever.

    So `--PATH.recipe modern` is an option for each part that the command line does not give itself; those of a config
    are replaced.
    """
    expanded: list[str] = []
    rest, recipes = list(words), list[tuple[str, str]]()
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
        elif option.startswith("--model.") and option.endswith(".recipe") and (equals or rest):
            recipes.append((option.removesuffix("recipe"), value if equals else rest.pop(0)))
        else:
            expanded.append(word)
    given = {name.replace(".init_args.", ".") for name in _names(expanded)}
    for start, name in recipes:
        for key, value in _left(parts_of(name), start.replace(".init_args.", "."), given).items():
            expanded.append(f"{start}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return expanded


def parts_of(recipe: Any) -> dict[str, Any]:
    """Arguments of a model that a recipe stands for; a UserError where there is no such recipe."""
    if str(recipe) not in RECIPES:
        raise UserError(f"model.init_args.recipe is {recipe!r}; choose {' or '.join(RECIPES)}")
    return RECIPES[recipe]


def _left(parts: dict[str, Any], start: str, given: set[str]) -> dict[str, Any]:
    """The parts of a recipe whose names are not given; of a mapping, what is left of it."""
    left = {
        key: _left(value, f"{start}{key}.", given) if isinstance(value, dict) else value
        for key, value in parts.items()
        if f"{start}{key}" not in given or isinstance(value, dict)
    }
    return {key: value for key, value in left.items() if value != {}}


def _names(words: list[str]) -> Iterator[str]:
    """Names of the options, those inside a mapping included."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        yield option
        if option.endswith(".transformer") and (text := value if equals else following).lstrip().startswith("{"):
            yield from (f"{option}.{key}" for key in read_yaml(text))


def _expanded_text(text: str) -> str:
    if not text.lstrip().startswith("{"):  # a file
        return text
    return json.dumps(_expand({"transformer": read_yaml(text)})["transformer"])


def _expand(value: Any) -> Any:
    if isinstance(value, list):
        return [_expand(each) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: _with_recipe(inner) if key in MODELS else inner for key, inner in value.items()}
    return {
        key: _whole(inner) if key == "transformer" and isinstance(inner, dict) else _expand(inner)
        for key, inner in value.items()
    }


def _with_recipe(model: Any) -> Any:
    """A model's mapping with the parts of its recipe, where it names one; those given beside it win."""
    given = model.get("init_args") if isinstance(model, dict) else None
    if not isinstance(given, dict) or "recipe" not in given:
        return model
    parts, own = parts_of(given["recipe"]), {key: value for key, value in given.items() if key != "recipe"}
    transformer = own.get("transformer", {})
    if isinstance(transformer, dict):
        own["transformer"] = parts["transformer"] | transformer
    return model | {"init_args": parts | own}


def _whole(transformer: dict[str, Any]) -> dict[str, Any]:
    """A transformer's fields; 0 for those that follow from palette and data, where they are left out."""
    return with_preset(transformer) | {name: transformer.get(name, 0) for name in FOLLOWING}
