"""What is given to make reaches the shell as words."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPO

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def palette(tmp_path):
    """`make palette` with a stand-in for igpt that prints its words, a line each."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "igpt").write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "bin" / "igpt").chmod(0o755)
    (tmp_path / ".installed").touch()

    def make(*given, **environment):
        command = ["make", "--silent", "palette", f"VENV={tmp_path}", *given]
        done = subprocess.run(command, cwd=REPO, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[2::2]

    return make


def test_the_data_give_the_number_of_colours_and_the_name(palette):
    assert palette() == ["CIFAR10", "512", "palettes/cifar10.npy"]
    assert palette("DATA=Digits") == ["Digits", "17", "palettes/digits.npy"]
    assert palette("DATA=SamplePhotos", "COLORS=64", "NAME=x") == ["SamplePhotos", "64", "palettes/x.npy"]


@pytest.mark.parametrize(
    "word", ["x; touch {}", "$(touch {})", "`touch {}`", "a'; touch {} '", "$(shell touch {})", "a b"]
)
def test_what_is_given_is_never_run(palette, tmp_path, word):
    word = word.format(tmp_path / "executed")
    expected = [word, "512", f"palettes/{word.lower()}.npy"]
    assert palette(f"DATA={word}") == expected
    assert palette(DATA=word) == expected
    assert palette("DATA=Digits", f"COLORS={word}", f"NAME={word}") == ["Digits", word, f"palettes/{word}.npy"]
    assert not (tmp_path / "executed").exists()
