"""The house: rooms with imports that go downwards only, small enough to be drawn from memory (docs/architecture.md)."""

import ast
from collections import defaultdict
from functools import cache

from tests.conftest import REPO

ROOT = REPO / "src" / "igpt"
FLOORS = [
    {"system", "__init__"},  # the second imports the public names when they are asked for
    {"palette", "model", "checkpoints"},
    {"data", "training", "interop"},
    {"modules", "tokenization"},
    {"families"},
    {"probing", "report", "testing", "evaluation", "curation"},
    {"callbacks", "parsing", "api", "scaling"},
    {"show"},
    {"runs", "commands"},
    {"cli"},
    {"__main__"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
LIGHTNING = {"lightning", "jsonargparse", "torchvision"}
THIRD_PARTY = {"torch", "numpy", "lightning", "jsonargparse", "faiss", "yaml", "sklearn", "matplotlib", "PIL"}


def parts(path):
    """A file of igpt by its place: ("model", "attention")."""
    return path.relative_to(ROOT).with_suffix("").parts


@cache
def imports(path):
    """Absolute names that a file imports, as tuples; those for type checkers do not count."""
    return tuple(found(path))


def found(path):
    """The work of `imports`, one name after the other."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((*node.module.split("."), alias.name) for alias in node.names)


def own(path):
    """What a file imports of igpt, by room and name within it; `__version__` and the like are of `__init__`."""
    for name in imports(path):
        if name[0] == "igpt" and len(name) > 1:
            yield (name[1], *name[2:]) if name[1] in FLOOR else ("__init__", *name[1:])


def files():
    return sorted(ROOT.rglob("*.py"))


def arrows():
    """Which room imports which, with the files that do."""
    found = defaultdict(list)
    for path in files():
        for room, *_ in own(path):
            if room != parts(path)[0]:
                found[parts(path)[0], room].append(path.name)
    for folder in ("datamodules", "benchmarks"):
        for path in sorted((REPO / folder).rglob("*.py")):
            for room, *_ in own(path):
                found[folder, room].append(path.name)
    return found


def test_every_file_stands_on_a_floor():
    assert {parts(path)[0] for path in files()} <= set(FLOOR)


def test_imports_go_downwards_only():
    for (room, other), by in arrows().items():
        if room in FLOOR:
            assert FLOOR[other] < FLOOR[room], f"{room} (floor {FLOOR[room]}) imports {other} in {', '.join(by)}"


def test_a_room_imports_another_room_and_not_its_inside():
    for path in files():
        for room, *rest in own(path):
            if room != parts(path)[0] and (ROOT / room).is_dir():
                inside = ROOT / room / f"{rest[0]}.py"
                assert not (inside.exists() and len(rest) > 1), f"{path.name} imports {room}.{'.'.join(rest)}"


def test_no_two_files_import_each_other():
    known = {parts(path): path for path in files()}
    needs = {
        own_parts: {
            end for name in imports(path) if name[0] == "igpt" for end in (name[1:], name[1:-1]) if end in known
        }
        for own_parts, path in known.items()
    }
    left = dict(needs)
    while left:
        free = [one for one, others in left.items() if not others & left.keys() - {one}]
        assert free, f"a circle among {', '.join('.'.join(one) for one in left)}"
        for one in free:
            del left[one]


def test_the_house_can_be_drawn_from_memory():
    # 23 rooms and 99 arrows before four rooms that each serve one verb beside the method (docs/architecture.md).
    assert len(FLOOR) + len(("datamodules", "benchmarks")) <= 27
    # 90 before other families of models: their room needs what `modules` needs, and three rooms look into it.
    assert len(arrows()) <= 118
    assert len(list(ROOT.glob("*.py"))) <= 8
    folders = {path.parent for path in files()}
    assert {
        folder.name: len(list(folder.glob("*.py"))) for folder in folders if len(list(folder.glob("*.py"))) > 10
    } == {}


def test_the_network_and_its_weights_know_torch_and_numpy_but_not_lightning():
    for path in files():
        if parts(path)[0] in {"palette", "model", "checkpoints", "interop", "report"}:
            assert not {name[0] for name in imports(path)} & LIGHTNING, path.name


def test_the_launcher_and_the_ground_floor_need_the_standard_library_alone_to_begin():
    for path in files():
        if parts(path)[0] in {"system", "cli", "__main__", "__init__"}:
            first = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            named = {
                (node.names[0].name if isinstance(node, ast.Import) else node.module).split(".")[0] for node in first
            }
            assert not named & THIRD_PARTY, path.name


def test_igpt_never_imports_its_plugins_by_name():
    for path in files():
        assert "igpt_datamodules" not in path.read_text(), path.name


def test_plugins_see_igpt_data_and_nothing_else_of_igpt():
    for path in sorted((REPO / "datamodules").rglob("*.py")):
        assert {room for room, *_ in own(path)} <= {"data"}, path.name
