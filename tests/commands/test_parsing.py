"""What people type, and what the parser is given."""

import json

import pytest

from igpt.commands import WORDS, function_of
from igpt.parsing import parser as parsing
from igpt.parsing.parser import CommandParser, arrange
from igpt.system.errors import UserError


def verb(
    ckpt: str,
    labels_per_class: list[int] | None = None,
    complete: list[str] | None = None,
    subsets: int = 5,
    seed: int = 0,
    scale: float = 1.0,
    save: bool = False,
) -> None:
    """A verb without bare words."""


def worded(files: list[str], out: str = "o.png", seed: int = 0, rates: list[int] | None = None) -> None:
    """A verb whose bare words are its files."""


def arranged(line, function=verb, words=None):
    return arrange(line if isinstance(line, list) else line.split(), function, words)


def parsed(line, function=verb, words=None):
    """The values that the function is called with, as far as they were given."""
    parser = CommandParser(prog="igpt verb")
    parser.add_argument("-c", "--config", action="config")
    parser.add_function_arguments(function)
    return parser.parse_args(arranged(line, function, words))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--labels-per-class 4 25", ["--labels_per_class", "[4, 25]"]),
        ("--labels_per_class 4 25", ["--labels_per_class", "[4, 25]"]),
        ("--labels-per-class 4", ["--labels_per_class", "[4]"]),
        ("--labels-per-class -4 25", ["--labels_per_class", "[-4, 25]"]),
        ("--labels-per-class [4,25]", ["--labels_per_class", "[4,25]"]),
        ("--labels-per-class=[4,25]", ["--labels_per_class=[4,25]"]),
        ("--labels_per_class 4 25 --subsets 3", ["--labels_per_class", "[4, 25]", "--subsets", "3"]),
        ("--labels_per_class 4 25 -c file.yaml", ["--labels_per_class", "[4, 25]", "-c", "file.yaml"]),
        ("--labels_per_class 4 many", ["--labels_per_class", '[4, "many"]']),
        ("--labels_per_class", ["--labels_per_class"]),
        ("--complete 1 a.png", ["--complete", '["1", "a.png"]']),
        ("--ckpt a.ckpt --seed -3", ["--ckpt", "a.ckpt", "--seed", "-3"]),
        ("--scale -.5 --seed=-3", ["--scale", "-.5", "--seed=-3"]),
        ("--data Digits --data.seed 3", ["--data", "Digits", "--data.seed", "3"]),
        ("--data.my-key 3 --data.low -1", ["--data.my-key", "3", "--data.low", "-1"]),
        ("-c file.yaml --seed 1", ["-c", "file.yaml", "--seed", "1"]),
        ("--help", ["--help"]),
        ("-h --ckpt x", ["-h", "--ckpt", "x"]),
        ("--unknown-option 3", ["--unknown-option", "3"]),
        ("", []),
        ("stray --seed 1", ["stray", "--seed", "1"]),
    ],
)
def test_what_is_typed_becomes_what_the_parser_takes(line, expected):
    assert arranged(line) == expected


FILES = [["a.png"], ["a.png", "b.png"], ["a, b.png"], ["[a].png"], ["[a] b.png", "c]d.png"], ["ä 'ö'.png"],
         ['a"b.png'], ["a: b.png", "# c.png"], ["null", "3", "true"], ["\N{SLIGHTLY SMILING FACE}.png"], ["a\\b.png"],
         ["{a}.png", "a=b.png"]]  # fmt: skip


@pytest.mark.parametrize("names", FILES, ids=" ".join)
def test_file_names_of_any_letters_arrive_as_they_are(names):
    assert parsed(["--ckpt", "x", "--complete", *names]).complete == names
    assert parsed(names, worded, "files").files == names
    assert parsed(["--files", *names], worded, "files").files == names


@pytest.mark.parametrize(
    "line", ["a b --out c --seed -1", "--out c a b --seed -1", "--seed=-1 a --out c b", "--seed -1 --out=c a b"]
)
def test_bare_words_may_stand_before_between_and_behind_options(line):
    found = parsed(line, worded, "files")
    assert (found.files, found.out, found.seed) == (["a", "b"], "c", -1)


def test_a_negative_number_behind_an_unknown_option_does_not_take_the_next_word():
    assert arranged("--data.low -1 a.png", worded, "files") == ["--data.low", "-1", "--files", '["a.png"]']


@pytest.mark.parametrize("dashes", ["--labels-per-class", "--labels_per_class"])
def test_lists_of_numbers_arrive_as_numbers(dashes):
    assert parsed(["--ckpt", "x", dashes, "4", "25", "400"]).labels_per_class == [4, 25, 400]
    assert parsed(["--ckpt", "x", f"{dashes}=[4, 25]"]).labels_per_class == [4, 25]
    assert parsed(["--ckpt", "x"]).labels_per_class is None


def test_a_file_of_values_is_read_and_words_beat_it(tmp_path):
    (tmp_path / "v.yaml").write_text("ckpt: from_file\nlabels_per_class: [1, 2]\nseed: 9\n")
    for line in (["-c", tmp_path / "v.yaml", "--seed", 4], [f"--config={tmp_path / 'v.yaml'}", "--seed", 4]):
        found = parsed(list(map(str, line)))
        assert (found.ckpt, found.labels_per_class, found.seed) == ("from_file", [1, 2], 4)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("--ckpt x --labels-per-class 4 many", "--labels_per_class"),
        ("--ckpt x --labels-per-class", "--labels_per_class"),
        ("--ckpt x --labels-per-clas 4", "--labels-per-clas"),
        ("--ckpt x --subsets 3 4", "4"),
        ("--ckpt x stray", "stray"),
        ("--ckpt", "--ckpt"),
        ("--subsets 3", "--ckpt"),
    ],
)
def test_what_does_not_fit_is_one_line(line, word):
    with pytest.raises(UserError) as caught:
        parsed(line)
    assert "\n" not in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("line", "on"),
    [("--save --seed 3", True), ("--save", True), ("--save false", False), ("--save=true", True), ("", False)],
)
def test_a_switch_without_a_word_is_on(line, on):
    assert parsed(f"--ckpt x {line}").save is on


def test_help_is_printed_wherever_it_stands(igpt):
    for line in (
        ["probe", "--help"],
        ["probe", "--ckpt", "x", "--help"],
        ["surprise", "a.png", "-h"],
        ["report", "-h"],
    ):
        code, out, _ = igpt(*line)
        assert code == 0
        assert "options" in out


def test_the_option_that_bare_words_belong_to_is_one_of_the_verb():
    from typing import Literal, get_origin, get_type_hints

    for name, words in WORDS.items():
        hint = get_type_hints(function_of(name))[words]
        assert hint is str or parsing.is_list(hint) or get_origin(hint) is Literal
    assert json.loads(arranged("a b", worded, "files")[1]) == ["a", "b"]
