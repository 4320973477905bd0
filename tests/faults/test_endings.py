"""How commands end where the terminal, the disk or the folder they are started in is not as it should be."""

import errno
import json
import os
import subprocess
import sys

import pytest

from igpt.cli import main
from igpt.system.files import atomic_path, final_name
from tests import forked

IGPT = [sys.executable, "-m", "igpt"]


def ended(command, shell, **how):
    """Exit code and stderr of a command line of the shell in which `"$@"` is the command."""
    words = ["bash", "-c", shell, "bash", *map(str, command)]
    done = subprocess.run(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, timeout=120, **how)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("shell", "code", "word"),
    [
        ('"$@" | true; exit ${PIPESTATUS[0]}', 141, ""),
        ('("$@"; echo $? >&2) 2>&1 | true; exit ${PIPESTATUS[0]}', 141, ""),  # stderr is gone as well
        ('"$@" >&-', 0, ""),
        ('"$@" >&- 2>&- <&-', 0, ""),
        ('"$@" > /dev/full', 1, "No space left on device"),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(shell, code, word):
    slow = [
        sys.executable,
        "-c",
        "import sys, time; from igpt.cli import main; time.sleep(0.5); sys.exit(main())",
        "--help",
    ]
    found, err = ended(slow, shell)
    assert found == code, err
    assert word in err
    assert err.count("\n") == (1 if word else 0), err


def test_what_is_written_to_a_file_is_whole_where_standard_output_is_closed(tmp_path):
    code, err = ended([*IGPT, "palette", "--data", "Digits", "--colors", 4, "--out", tmp_path / "p.npy"], '"$@" >&-')
    assert code == 0, err
    assert json.loads((tmp_path / "p.json").read_text())


def test_a_reader_that_leaves_ends_a_verb_quietly(igpt, monkeypatch):
    def broken(rest):
        sys.stdout.flush()
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("igpt.cli.runner", lambda verb: broken)
    code, _, err = igpt("probe")  # another pipe than that of the output
    assert (code, err.count("\n")) == (1, 1)


@pytest.fixture
def failing(monkeypatch):
    """Have a verb end with an error."""

    def command(error):
        def broken(rest):
            raise error

        monkeypatch.setattr("igpt.cli.runner", lambda verb: broken)

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            PermissionError(13, "Permission denied", "x/p.npy"),
            2,
            "x/p.npy: Permission denied; name another file or folder",
        ),
        (FileNotFoundError(2, "No such file or directory", b"p"), 2, "p: No such file or directory; name another"),
        (OSError(28, "No space left on device"), 2, "the disk: No space left on device; make room"),
        (OSError(27, "File too large", "e/f"), 2, "e/f: File too large; make room"),
        (OSError("1024 requested and 512 written"), 2, "the disk: 1024 requested and 512 written; make room"),
        (OSError(28, "No space left on device", f"x/.a b.{os.getpid()}.partial.npy"), 2, "x/a b.npy: No space"),
        (OSError(28, "No space left on device", f"/x/.e.{os.getpid()}.partial/f"), 2, "/x/e/f: No space"),
        (ConnectionRefusedError(111, "Connection refused"), 1, "ConnectionRefusedError: "),
        (SystemExit("no licence\nfound"), 1, "no licence\\nfound"),
        (SystemExit(None), 0, None),
        (SystemExit(5), 5, None),
        (RuntimeError("a \x1b[2J\x07 b"), 1, "RuntimeError: a \\x1b[2J\\x07 b"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line(igpt, failing, error, code, line):
    failing(error)
    found, _, err = igpt("palette")
    assert found == code, err
    assert err.count("\n") == (line is not None)
    assert err.startswith(f"igpt palette: {line}" if line else "")


def test_names_of_temporary_files_are_those_that_atomic_path_gives(tmp_path):
    with atomic_path(tmp_path / ".a.b.npy") as path:
        assert final_name(str(path)) == str(tmp_path / ".a.b.npy")
        path.touch()
    assert final_name("a/.hidden.5.npy") == "a/.hidden.5.npy"


def test_control_characters_in_names_are_written_out(igpt, monkeypatch):
    monkeypatch.setattr("igpt.cli.runner", lambda verb: lambda rest: print("a\x1b[2J\x07\u202e.png\tb"))
    code, out, _ = igpt("surprise")
    assert (code, out) == (0, "a\\x1b[2J\\x07\\u202e.png\tb\n")


def test_words_that_are_not_utf8_are_refused(igpt):
    code, _, err = igpt("probe", "--ckpt", "a\udcff.ckpt")
    assert (code, err.count("\n")) == (2, 1)
    assert "a\\udcff.ckpt has bytes that are not UTF-8" in err


def test_a_current_folder_that_was_removed_is_said(tmp_path, capsys, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["palette", "--data", "Digits", "--out", "p.npy"]) == 2
    assert "the current folder is not there any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "options", "word"),
    [
        pytest.param("palette", ["--data", "Digits", "--colors", 17, "--out", "p.npy"], "p", marks=pytest.mark.slow),
        ("export", ["--ckpt", "CKPT", "--out", "e"], "e/model.safetensors"),
        pytest.param(
            "export", ["--ckpt", "CKPT", "--out", "e", "--format", "checkpoint"], "e/model.ckpt", marks=pytest.mark.slow
        ),
        ("test", ["--config", "CONFIG", "--ckpt_path", "CKPT", "--runs_dir", "r"], "File too large"),
        pytest.param(
            "predict",
            ["--config", "CONFIG", "--ckpt_path", "CKPT", "--runs_dir", "r"],
            "File too large",
            marks=pytest.mark.slow,
        ),
        ("sample", ["--ckpt", "CKPT", "--num", 64, "--out", "s.png"], "s.png"),
    ],
    ids=["palette", "export", "export as a checkpoint", "test", "predict", "sample"],
)
def test_a_full_disk_is_one_line_that_names_what_was_to_be_written(digits_run, tmp_path, verb, options, word):
    """Each is a process of its own, since its limit of 2,000 bytes a file cannot be lifted. Slow: like another."""
    given = {"CKPT": digits_run.checkpoint, "CONFIG": digits_run.config}
    process = forked.igpt(verb, *(given.get(option, option) for option in options), cwd=tmp_path, largest=2000)
    _, err = process.communicate()
    lines = [line for line in err.splitlines() if line.startswith("igpt")]
    assert process.returncode == 2, err
    assert len(lines) == 1, err
    assert word in lines[0]
    assert f".{process.pid}" not in lines[0]
    assert "partial" not in lines[0]
    assert "Traceback" not in err
