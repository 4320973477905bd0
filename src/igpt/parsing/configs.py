"""Checks a config file before it is parsed: YAML would pass over a key given twice, and run what a tag names."""

from pathlib import Path

import yaml

from igpt.system import UserError

LARGEST = 2**20  # bytes of a config
KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge", "value")  # YAML's plain values
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in KINDS}


def config_name(path: str | Path) -> str:
    """Name of a config and its runs: its stem; in configs/ with the folder, as in cifar10_ar_small."""
    path = Path(path)
    folder = path.absolute().parent
    return f"{folder.name}_{path.stem}" if folder.parent.name == "configs" else path.stem


def check_config(path: str | Path) -> None:
    """Raise a UserError for a file that is no config: no UTF-8, no YAML mapping, too large, or a key in it twice."""
    path = Path(path)
    if not path.is_file():  # a pipe is left to whoever reads it
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
    """Raise a ValueError or YAMLError unless the text is one mapping of plain values, with each key once."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise ValueError("it is empty")
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("it is not one mapping of options to values")
    _check(root, set(), [])


def _check(node: yaml.Node, done: set[yaml.Node], around: list[yaml.Node]) -> None:
    """Look at a node and all that it holds; an alias is the node that it stands for."""
    line = node.start_mark.line + 1
    if node in around:
        raise ValueError(f"line {line} holds an alias of itself")
    if node in done:
        return
    if node.tag not in TAGS:
        raise ValueError(f"line {line} has the tag {node.tag}, and a config holds plain values")
    held = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {line} has a key that is no word")
            if key.value in keys and key.value != "<<":
                raise ValueError(f"line {key.start_mark.line + 1} gives {key.value!r} a second time")
            keys.add(key.value)
        held = [one for pair in node.value for one in pair]
    for one in held:
        _check(one, done, [*around, node])
    done.add(node)
