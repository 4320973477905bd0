"""The house: imports go downwards only, and plug-ins see nothing of igpt but `igpt.data`."""

import ast

from tests.conftest import REPO

FLOORS = [
    {"errors", "files", "locks", "signals", "spec", "plugins", "allocator", "hardware", "search_path", "terminal"},
    {
        "counting",
        "kmeans",
        "palette",
        "attention",
        "permutation",
        "shards",
        "transformer",
        "decoding",
        "tokengraph",
        "packing",
        "recorded",
        "fused",
        "objectives",
        "sampling",
        "schedule",
        "order",
        "checkpoint",
        "contract",
        "splits",
        "parts",
        "sharding",
        "features",
        "probing",
        "interop",
        "imagefile",
        "images",
        "keyed",
        "loaders",
        "pictures",
        "workers",
    },
    {"data", "modules", "callbacks", "loading", "logpoints", "report", "saving", "testing"},
    {"commands"},
    {"attached", "cli", "__main__", "__init__"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
STANDARD_ONLY = {
    "errors",
    "files",
    "signals",
    "spec",
    "plugins",
    "allocator",
    "search_path",
    "terminal",
    "attached",
    "cli",
    "__main__",
    "__init__",
}


def imports(path):
    """Top-level names of absolute imports, igpt's own with their second part; those for type checkers do not count."""
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
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_files():
    root = REPO / "src" / "igpt"
    for path in sorted(root.rglob("*.py")):
        yield path, path.relative_to(root).parts[0].removesuffix(".py")


def test_every_file_stands_on_a_floor():
    assert {room for _, room in own_files()} <= set(FLOOR)


def test_imports_go_downwards_only():
    for path, room in own_files():
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "igpt" and len(parts) > 1 and parts[1] in FLOOR:
                assert FLOOR[parts[1]] <= FLOOR[room], f"{path.name} (floor {FLOOR[room]}) imports {name}"


def test_floor_one_knows_torch_and_numpy_but_not_lightning():
    for path, room in own_files():
        if FLOOR[room] == 1:
            for name in imports(path):
                top = name.split(".")[0]
                assert top not in {"lightning", "jsonargparse", "torchvision"}, f"{path.name} imports {name}"


def test_the_launcher_and_floor_zero_need_the_standard_library_alone():
    third_party = {"torch", "numpy", "lightning", "jsonargparse", "faiss", "yaml", "sklearn", "matplotlib", "PIL"}
    for path, room in own_files():
        if room in STANDARD_ONLY:
            assert not {name.split(".")[0] for name in imports(path)} & third_party, path.name


def test_igpt_never_imports_its_plugins_by_name():
    for path, _ in own_files():
        assert "igpt_datamodules" not in path.read_text(), path.name


def test_plugins_see_igpt_data_and_nothing_else_of_igpt():
    for path in sorted((REPO / "datamodules" / "igpt_datamodules").rglob("*.py")):
        for name in imports(path):
            if name.split(".")[0] == "igpt":
                assert name.startswith("igpt.data."), f"{path.name} imports {name}"
