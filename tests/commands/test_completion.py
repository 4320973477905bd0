"""`igpt completion` prints what a shell understands."""

import shutil
import subprocess

import pytest

from igpt.cli import VERBS

ASK = 'COMP_WORDS=(igpt {words}); COMP_CWORD={place}; _igpt; printf "%s\\n" "${{COMPREPLY[@]}}"'


def completed(igpt, words, place):
    script = igpt("completion", "bash")[1]
    asked = ["bash", "-c", script + ASK.format(words=words, place=place)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_and_options(igpt):
    assert completed(igpt, "pro", 1) == ["probe"]
    assert completed(igpt, "fit --trainer.max_s", 2) == ["--trainer.max_steps"]
    assert completed(igpt, "sample --top", 2) == ["--top_k", "--top_p"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_all_verbs(igpt, shell):
    code, out, err = igpt("completion", shell)
    assert code == 0, err
    assert all(verb in out for verb in VERBS)
    assert "trainer.max_steps" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True)


def test_a_shell_that_is_not_known_is_said(igpt):
    code, _, err = igpt("completion", "cmd")
    assert (code, len(err.splitlines())) == (2, 1)
