"""The tests of the core, tried by mutation: one small fault at a time is put into a file, and a test must find it.

`mutation.py [FILE ...]` prints each fault that no test finds and a table for docs/testing.md. Each fault is tried in a
forked child of a process that has imported torch but neither igpt nor its tests: the child imports both, the faulty
file among them, so that constants, decorators and class bodies are mutated like everything else.
"""

import argparse
import ast
import importlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

REPO = Path(__file__).resolve().parents[1]
SAMPLE = 60  # mutants of a file that are tried; drawn by seed where there are more
PURE = "properties/test_pure.py::test_"
PALETTE = (  # those that cluster no photos and run no command
    "as_many_colors_as_occur_is_lossless",
    "fewer_different_colors_than_k_is_an_error_that_counts_them",
    "weights_count_as_repeated_pixels",
    "one_color_is_the_mean_of_all_pixels",
    "tokens_are_in_raster_order",
    "ties_go_to_the_lower_index",
    "the_file_is_the_released_format_and_comes_back_the_same",
    "a_file_that_holds_no_palette_is_refused_by_name",
    "a_palette_to_be_filled_is_blank_until_a_state_dict_comes_and_builds_its_table_at_the_first_use",
    "a_number_of_colors_that_no_palette_has_is_refused",
    "decoding_an_encoded_image_gives_each_pixel_its_nearest_palette_color",
    "loading_a_state_dict_brings_its_own_table",
    "where_many_colors_are_close_the_table_equals_brute_force_too",
    "a_color_that_is_not_among_the_16_nearest_to_a_block_may_be_the_nearest_to_its_corner",
    "colors_of_another_shape_are_no_palette",
    "the_quality_of_a_palette_is_that_of_its_nearest_colors_over_all_pixels",
)
CHECKPOINT = (  # those that train nothing and end no process
    "a_checkpoint_has_a_checksum_that_sha256sum_agrees_with",
    "a_damaged_checkpoint_is_named_and_the_newest_intact_one_offered",
    "a_second_name_of_a_checkpoint_has_its_checksum",
    "where_no_other_is_intact_none_is_offered",
    "a_checkpoint_without_a_checksum_is_read_as_it_is",
    "a_checkpoint_in_another_protocol_of_pickle_is_read_without_a_warning",
    "a_checkpoint_and_its_checksum_are_on_the_disk_before_it_gets_its_name",
    "a_file_of_another_program_is_refused",
    "a_changed_bit_is_noticed_without_a_checksum_beside",
    "the_steps_of_a_folder_are_its_files_and_folders_of_that_name_the_newest_first",
    "a_moved_checkpoint_has_its_checksum_and_replaces_what_stood_there",
    "a_removed_checkpoint_takes_its_checksum_with_it",
    "the_first_weights_that_are_not_finite_are_named",
    "a_checkpoint_whose_checksum_cannot_be_written_is_not_written_either",
)
TESTS = {
    "model/objectives": f"test_objectives.py {PURE}covering_masks_hide_every_position_once",
    "model/sampling": "test_sampling.py test_infilling.py "
    f"{PURE}filtering_keeps_the_likeliest_and_leaves_a_distribution",
    "model/order": f"test_order.py {PURE}an_order_and_its_inverse_undo_each_other",
    "data/randomness": "test_permutation.py test_data.py datamodules/test_augment.py",
    "data/splits": f"test_splits.py {PURE}a_split_is_a_partition_that_gives_each_class_its_share "
    f"{PURE}few_per_class_are_so_many_of_each_and_none_twice",
    "palette/kmeans": "test_kmeans.py",
    "probing/methods/knn": "probing/test_knn.py",
    "probing/methods/sgd": "probing/test_sgd.py",
    "probing/methods/lbfgs": "probing/test_lbfgs.py test_mps.py::test_probes_are_fitted_where_there_is_float64",
    "probing/protocol": "probing/test_protocol.py probing/test_lbfgs.py",
    "model/attention/dense": "test_attention.py test_transformer.py",
    "model/transformer": "test_transformer.py test_attention.py",
    "palette/palette": " ".join(f"test_palette.py::test_{test}" for test in PALETTE),
    "model/cache": "test_sampling.py test_decoding.py",
    "checkpoints/format": " ".join(f"test_checkpoint.py::test_{test}" for test in CHECKPOINT),
    "data/shards/index": "shards/test_index.py faults/test_shards.py",
    "data/shards/kinds": "vq/test_shards.py shards/test_reader.py shards/test_index.py faults/test_shards.py",
    "data/shards/reader": "shards/test_reader.py",
    "tokenization/writing": "shards/test_index.py shards/test_colours.py",
}
OURS = ("igpt", "igpt_datamodules", "tests", "conftest", "__main__")
GPU_ONLY = ("is_cuda", "Recorded", "self.recorded", "'cuda'")  # what stands on or under such a line runs on a GPU alone
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One field of one node of the syntax tree, set to something else."""

    node: ast.AST
    field: str
    value: Any
    line: int

    def apply(self, tree: ast.Module) -> str:
        """The source with the fault in it; the tree is as before."""
        before = getattr(self.node, self.field)
        setattr(self.node, self.field, self.value)
        text = ast.unparse(ast.fix_missing_locations(tree))
        setattr(self.node, self.field, before)
        return text


def changes(node: ast.AST) -> Iterator[Change]:
    """Every fault of this node and those below it; types, docstrings and the words of errors have none."""
    line = getattr(node, "lineno", 0)
    match node:
        case ast.JoinedStr() | ast.keyword(arg="strict" | "frozen"):  # what these forbid, no right program does
            return
        case ast.FunctionDef(args=given) if "Recorded" in ast.unparse(given):
            return
        case ast.If(test=test) if any(word in ast.unparse(test) for word in (*GPU_ONLY, "TYPE_CHECKING")):
            return
        case ast.Compare(ops=[op]) | ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            other = SWAPPED[type(op)]()
            compared = isinstance(node, ast.Compare)
            yield Change(node, "ops" if compared else "op", [other] if compared else other, line)
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                yield Change(node, "ops", [*ops[:place], SWAPPED[type(op)](), *ops[place + 1 :]], line)
        case ast.UnaryOp(op=op, operand=operand):
            yield Change(node, "operand", ast.UnaryOp(op, operand), line)
        case ast.Constant(value=bool() as value):
            yield Change(node, "value", not value, line)
        case ast.Constant(value=int() | float() as value):
            yield Change(node, "value", value + 1, line)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield Change(node, "test", ast.UnaryOp(ast.Not(), test), line)
        case ast.Return(value=ast.expr()):
            yield Change(node, "value", ast.Constant(None), line)
        case _:
            pass
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or isinstance(node, ast.Raise):
            continue
        below = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST)]
        for place, one in enumerate(below):
            if removable(one):
                yield Change(node, field, [*below[:place], ast.Pass(), *below[place + 1 :]], one.lineno)
            yield from changes(one)


def removable(node: ast.AST) -> bool:
    """Statements whose absence is a fault of its own; without a name's assignment Python itself complains."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(targets=[target]):
            return not isinstance(target, ast.Name | ast.Tuple)
        case _:
            return isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was changed, and the whole file with that change."""
    tree = ast.parse(source)
    before = ast.unparse(tree).splitlines()
    for change in changes(tree):
        text = change.apply(tree)
        lines = [new for old, new in zip(before, text.splitlines(), strict=False) if old != new]
        yield f"{change.line}: {lines[0].strip() if lines else 'last lines removed'}", text


def run_tests(name: str, text: str | None, tests: list[str], output: int) -> None:
    """In a forked child: the tests with this text in place of the file; ends the process."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    if text is not None:
        module, ordinary = "igpt." + name.replace("/", "."), SourceFileLoader.get_code
        path = str(REPO / "src" / "igpt" / f"{name}.py")
        changed = compile(text, path, "exec")
        SourceFileLoader.get_code = lambda self, asked: changed if asked == module else ordinary(self, asked)  # type: ignore
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        told = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins that are imported already
        options = [
            "-x",
            "-q",
            "-W",
            told,
            "-n0",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder}/tests",
        ]
        code = pytest.main([*options, *(f"{REPO}/tests/{test}" for test in tests)])
    os._exit(int(code))


def survives(name: str, text: str | None, tests: list[str], limit: float) -> tuple[bool, float]:
    """Whether all tests pass within `limit` seconds, and how long that took."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            try:
                run_tests(name, text, tests, output.fileno())
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(70)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < began + limit:
            time.sleep(0.02)
        if ended == (0, 0):
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        if text is None and ended[1]:
            output.seek(0)
            sys.exit(f"the tests of {name} fail as it is:\n{output.read().decode()[-4000:]}")
    return ended[1] == 0, time.monotonic() - began


def import_the_rest(tests: list[str]) -> None:
    """Import what the tests import of others' modules, which a child finds out, and none of our own."""
    with tempfile.TemporaryFile("w+") as found:
        if os.fork() == 0:
            sys.stdout = io.StringIO()
            import pytest

            pytest.main(
                ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *(f"{REPO}/tests/{one}" for one in tests)]
            )
            print("\n".join(name for name in sys.modules if name.split(".")[0] not in OURS), file=found, flush=True)
            os._exit(0)
        os.wait()
        found.seek(0)
        for name in found.read().split():
            if not name.startswith(("_pytest", "pytest", "xdist", "_hypothesis")):  # these are made anew by each run
                with suppress(Exception):  # made by its package on the way
                    importlib.import_module(name)


def try_file(name: str, sample: int) -> str:
    """Try the mutants of one file; its row of the table."""
    began, tests = time.monotonic(), TESTS[name].split()
    _, usual = survives(name, None, tests, 300)
    every = list(mutants((REPO / "src" / "igpt" / f"{name}.py").read_text()))
    chosen = every if len(every) <= sample else random.Random(0).sample(every, sample)
    alive = []
    for what, text in chosen:
        if survives(name, text, tests, 5 + 4 * usual)[0]:
            alive.append(what)
            print(f"{name}.py:{what}", flush=True)
    killed = len(chosen) - len(alive)
    print(f"{name}: {usual:.1f} s as it is, {time.monotonic() - began:.0f} s in all", file=sys.stderr, flush=True)
    return f"| `{name}.py` | {len(every)} | {len(chosen)} | {killed} | {100 * killed / len(chosen):.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="such as model/objectives; all of them if left out")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants of a file that are tried at most")
    arguments = parser.parse_args()
    sys.path[:0] = [str(REPO), str(REPO / "src"), str(REPO / "datamodules")]
    os.chdir(REPO)
    names = arguments.files or list(TESTS)
    import_the_rest([test for name in names for test in TESTS[name].split()])
    print("| file | mutants | tried | killed | share |\n|---|---|---|---|---|")
    for name in names:
        print(try_file(name, arguments.sample), flush=True)


if __name__ == "__main__":
    main()
