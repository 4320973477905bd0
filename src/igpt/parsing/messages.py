"""What a parser says about a word, as one line: the option's whole name, the value, and what is expected."""

import re
from ast import literal_eval

from igpt.parsing.trusted import refused_import

LONGEST = 400
LONGEST_VALUE = 80
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers",
}
UNION = r"Subtypes: \[(.*)\]\n\s*Errors:\n\s*- (.*)\n\s*Given value type: .*?\n\s*Given value: (.*)"
OF_CLASSES = r"\s*Subclass types expect one of:(\n\s*- a [^\n]*)+"


def one_line(message: str) -> str:
    """A parser's message as one line that begins with the option it is about; typos were found before (`precheck`)."""
    text = re.sub(r"\s+", " ", "; ".join(dict.fromkeys(line.strip(" -\t") for line in message.splitlines())))
    text = re.sub(r'^Parser key "([^"]*)":;? ?', r"--\1: ", text)
    if refused := refused_import(text):
        return f"{text.partition(':')[0]}: {refused}"
    if missing := re.fullmatch(r"(the following arguments are required: )(.*)", text):
        names = ", ".join(f"--{name.rpartition('.')[2]}" for name in missing[2].split(", "))
        return f"{missing[1]}{names}; see --help, or take a file from configs/ with --config"
    text = misfit(message) or re.sub(
        r"Does not validate .*?; Errors:; |; (Expected a <|Given value type: ).*", "", text
    )
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def not_installed(error: ModuleNotFoundError, message: str) -> str:
    """The line about a package that a class needs; libraries give its name, or the command that installs it."""
    kind = re.search(r"class_path='(?:\w+\.)*(\w+)'", message)
    package = re.search(r"pip install (?:-U )?'([^']+)'", str(error))
    name = package[1] if package else error.name or str(error)
    return f"{kind[1] if kind else 'an option'} needs a package that is not installed: pip install '{name}'"


def misfit(message: str) -> str | None:
    """The line about a value that its option cannot have, such as "--data.batch_size is x, not a whole number"."""
    key = re.match(r'Parser key "([^"]*)"', message)
    if key is None:
        return None
    if inner := re.search(r"^[ -]*--([\w.]+(?:: | is ).*)", message, re.MULTILINE):  # of a class, by that one's parser
        return f"--{key[1]}.{inner[1]}"
    if needed := re.search(r"^[ -]*the following arguments are required: --(\w+)", message, re.MULTILINE):
        return f"--{key[1]}.{needed[1]} is missing"
    message = re.sub(OF_CLASSES, "", message)
    union = re.search(UNION, message, re.DOTALL)
    if union and all(re.match("Expected a |Not a valid subclass", each) for each in re.split(r"\n\s*- ", union[2])):
        return not_of(key[1], union[3], union[1])
    single = re.search(r"^\s*Expected an? (.*?)\. Got value: (.*)", message, re.MULTILINE | re.DOTALL)
    return not_of(key[1], single[2], single[1]) if single else None


def not_of(name: str, value: str, types: str) -> str:
    """The line for a value, by how Python writes the types that its option takes; null goes without saying."""
    found = re.findall(r"<class '([^']+)'>|([\w.]+\[[^\]]*\]+)|(tuple with \d+ elements)|([\w.]+)", types)
    names = ["".join(each) for each in found]
    words = [word for each in names if "Literal[" in each for word in literal_eval(each[each.index("[") :])]
    kinds = [kind(each) for each in names if "Literal[" not in each and each != "NoneType"]
    if words:
        kinds.append(f"one of {', '.join(dict.fromkeys(map(str, words)))}")
    shown = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 4] + " ..."
    return f"--{name} is {' '.join(shown.split()) or repr('')}, not {' or '.join(dict.fromkeys(kinds))}"


def kind(name: str) -> str:
    """A type in the words of who uses a shell."""
    if count := re.fullmatch(r"tuple with (\d+) elements", name):
        return f"a list of {count[1]}"
    return KINDS.get(name) or ("a list" if "[" in name else f"a {name.rpartition('.')[2]}")
