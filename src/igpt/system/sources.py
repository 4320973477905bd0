"""What classes and functions take, read from their source files: nothing is imported, which for torch takes seconds."""

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

Parameters = dict[str, tuple[str, ast.expr | None]]  # name: the module it is defined in, and its type there
PLAIN = {"object", "ABC", "Generic", "Protocol"}  # bases that bring no parameters
DEEPEST = 20  # files from a name to its definition


def read(module: str) -> tuple[ast.Module, str] | None:
    """A module's source and the package that its relative imports begin from; None where it has no file of source."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    for folder in map(Path, spec.submodule_search_locations or ()):
        if (file := folder.joinpath(*rest, "__init__.py")).is_file():
            return parsed(file), module
        if rest and (file := folder.joinpath(*rest).with_suffix(".py")).is_file():
            return parsed(file), module.rpartition(".")[0]
    if rest or not str(spec.origin).endswith(".py"):
        return None
    return parsed(Path(str(spec.origin))), ""


def parsed(file: Path) -> ast.Module:
    """A file of source as a tree, which is not to be changed: the one of before, unless the file is another since."""
    state = file.stat()
    return _parsed(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _parsed(file: Path, changed: int, size: int) -> ast.Module:
    return ast.parse(file.read_bytes())


@lru_cache(maxsize=256)
def imported(tree: ast.Module, package: str) -> Mapping[str, str]:
    """Full paths of the names that a module imports."""
    found = dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                      for a in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            source = resolve_name("." * node.level + (node.module or ""), package)
            found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
    return found


def names_in(module: str) -> list[str]:
    """Classes that a module defines or imports; none where that cannot be told from its source."""
    if (source := read(module)) is None or "*" in (passed := imported(*source)):
        return []
    if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in source[0].body):
        return []
    return sorted({node.name for node in source[0].body if isinstance(node, ast.ClassDef)} | passed.keys())


def definition(path: str, depth: int = 0) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """The class or function of a dotted path, with the module that defines it; None where it is not found."""
    module, _, name = path.rpartition(".")
    source = read(module) if module and depth < DEEPEST else None
    if source is None:
        return None
    for node in source[0].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
    target = imported(*source).get(name)
    return definition(target, depth + 1) if target else None


def parameters(path: str, method: str = "__init__") -> Parameters | None:
    """Parameters of a class or function; None where they cannot all be told, as of a base that is built at run time."""
    if (found := definition(path)) is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node)
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == method), None)
    known = _of_function(module, own) if own else {}
    if own is not None and own.args.kwarg is None:
        return known
    if is_dataclass(node):
        known = {field.target.id: (module, field.annotation) for field in node.body
                 if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)}  # fmt: skip
    for base in node.bases:
        if ast.unparse(base).rpartition(".")[2].partition("[")[0] in PLAIN:
            continue
        inherited = parameters(full_path(module, base), method)
        if inherited is None:
            return None
        known = inherited | known
    return known


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether `@dataclass` stands above a class."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def dataclasses_in(module: str, annotation: ast.expr | None) -> Iterator[str]:
    """Full paths of the dataclasses that a type names."""
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Name | ast.Attribute):
            found = definition(path := full_path(module, node))
            if found is not None and isinstance(found[1], ast.ClassDef) and is_dataclass(found[1]):
                yield path


def full_path(module: str, name: ast.expr) -> str:
    """The dotted path of a name as a module uses it."""
    head, dot, rest = ast.unparse(name).partition(".")
    source = read(module)
    return (imported(*source) if source else {}).get(head, f"{module}.{head}") + dot + rest


def _of_function(module: str, node: ast.FunctionDef) -> Parameters:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {each.arg: (module, each.annotation) for each in arguments if each.arg != "self"}
