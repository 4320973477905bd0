import subprocess
import sys
import time

import pytest

from igpt.cli import VERBS, main


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_names_every_verb_and_imports_neither_torch_nor_lightning():
    done = python(
        "import sys\nfrom igpt.cli import main\ncode = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse', 'faiss'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_help_answers_in_under_0_3_seconds():
    """The best of five, so that a busy machine does not decide; the bound is the interface's, not a benchmark."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "igpt", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3


@pytest.mark.parametrize(("typed", "meant"), [("sampel", "sample"), ("Probe", "probe"), ("fitt", "fit")])
def test_a_wrong_verb_gets_did_you_mean(igpt, typed, meant):
    code, _, err = igpt(typed)
    assert code == 2
    assert f"did you mean '{meant}'?" in err


def test_a_verb_that_resembles_none_gets_the_list(igpt):
    code, _, err = igpt("xyz")
    assert code == 2
    assert "choose from palette" in err


def test_no_verb_prints_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage: igpt VERB" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("igpt ")


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_its_options(igpt, verb):
    code, out, _ = igpt(verb, "--help")
    assert code == 0
    assert "--config" in out


def test_an_unforeseen_error_is_one_line_and_exit_1_and_debug_shows_the_traceback(igpt, monkeypatch):
    def broken(rest):
        raise RuntimeError("disk on fire\nsecond line")

    monkeypatch.setattr("igpt.cli.runner", lambda verb: broken)
    code, _, err = igpt("probe", "--ckpt", ".")
    assert code == 1
    assert err.strip() == "igpt probe: RuntimeError: disk on fire (run again with --debug for the traceback)"
    with pytest.raises(RuntimeError):
        main(["probe", "--debug"])


def test_print_config_can_be_given_back_as_config(igpt, tmp_path):
    code, printed, _ = igpt("palette", "--data", "Digits", "--out", tmp_path / "a.npy", "--colors", 9, "--print_config")
    assert code == 0
    (tmp_path / "p.yaml").write_text(printed)
    code, out, err = igpt("palette", "-c", tmp_path / "p.yaml")
    assert code == 0, err
    assert "9 colours" in out
