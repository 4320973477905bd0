"""What `igpt VERB --help` shows."""

import json
import subprocess
import sys

import pytest

from igpt.cli import TRAINER_VERBS, VERBS

ALL = """
import contextlib, io, json
from igpt.cli import VERBS, main

def shown(verb):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([verb, "--help"])
    return code, out.getvalue()

print(json.dumps({verb: shown(verb) for verb in VERBS}))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str]]:
    """Of every verb, from a fresh process: here data modules of other tests would stand among those to choose from."""
    made = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True)
    return json.loads(made.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_two_screens_and_says_what_it_does_once(helps, verb):
    code, out = helps[verb]
    assert code == 0
    assert len(out.splitlines()) <= 100
    first = out.split("\n\n")[1].split(".")[0].split("\n")[0]
    assert verb in TRAINER_VERBS or out.count(first) == 1
    assert "\x08" not in out


@pytest.mark.parametrize("verb", TRAINER_VERBS)
def test_help_all_shows_what_help_leaves_out(igpt, verb):
    short, whole = igpt(verb, "--help")[1], igpt(verb, "--help=all")[1]
    assert "--help=all" in short.splitlines()[-1]
    assert "--trainer.profiler" in whole
    assert "--trainer.profiler" not in short
    assert {line for line in short.splitlines() if line.startswith("  --")} <= set(whole.splitlines())


def test_words_that_need_no_option_are_shown_without_one(igpt):
    for verb, word in (("surprise", "FILES"), ("init", "FOLDER")):
        out = igpt(verb, "--help")[1]
        assert f"\n  {word}" in out
        assert f"--{word.lower()}" not in out
