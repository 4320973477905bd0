"""Configs and the digits' palette come with igpt: found by name from anywhere, in a checkout and in a wheel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from igpt.system import find_config, find_palette, shipped, shipped_configs
from tests.conftest import REPO


@pytest.mark.parametrize("given", ["cifar10/ar_small", "cifar10_ar_small", "configs/cifar10/ar_small.yaml"])
def test_a_config_is_found_by_its_name_from_anywhere(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config(given)) == REPO / "configs" / "cifar10" / "ar_small.yaml"


def test_a_file_of_ones_own_goes_before_a_config_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits_ar").write_text("mine")
    assert find_config("digits_ar") == "digits_ar"


def test_a_palette_that_comes_along_is_used_where_the_folder_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_palette("palettes/digits.npy") == REPO / "palettes" / "digits.npy"
    assert find_palette("palettes/mine.npy") == Path("palettes/mine.npy")
    Path("palettes").mkdir()
    Path("palettes/digits.npy").touch()
    assert find_palette("palettes/digits.npy") == Path("palettes/digits.npy")


@pytest.mark.parametrize("verb", ["fit", "probe", "tune"])
def test_a_name_near_that_of_a_config_is_suggested_in_one_line(igpt, verb):
    code, _, err = igpt(verb, "--config", "digit_ar")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--config digit_ar does not exist; did you mean digits_ar?" in err


def test_a_wrong_config_is_refused_before_torch_is_imported():
    code = "import sys; from igpt.cli import main; main(['fit', '--config', 'nope']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--config nope does not exist" in done.stderr
    assert done.stdout.strip() == "False"


def test_all_configs_are_listed_with_what_they_need_and_can_be_copied(igpt, tmp_path):
    code, out, _ = igpt("configs")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert set(lines) == {name for name in shipped_configs() if not name.startswith("scale/")}
    assert "2 CPU cores; about a minute" in lines["digits_ar"]
    assert all(";" in line for line in lines.values())
    assert igpt("configs", "--copy", tmp_path / "mine")[0] == 0
    copied = {path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert copied == {path.relative_to(shipped("configs")) for path in shipped("configs").rglob("*") if path.is_file()}
    code, _, err = igpt("configs", "--copy", tmp_path / "mine")
    assert (code, len(err.splitlines())) == (2, 1)


def test_an_installed_wheel_trains_the_digits_outside_the_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quietly = {"check": True, "capture_output": True, "text": True}
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, REPO], **quietly)
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], **quietly)
    (tmp_path / "elsewhere").mkdir()
    words = ["fit", "--config", "digits_ar", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    where = "import sys, igpt; print(igpt.__file__); from igpt.cli import main; sys.exit(main(sys.argv[1:]))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    start = [sys.executable, "-c", where, *words]
    done = subprocess.run(start, cwd=tmp_path / "elsewhere", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(tmp_path / "site"))
    assert (tmp_path / "elsewhere" / "runs" / "digits_ar" / "checkpoints" / "last.ckpt").exists()


def test_importing_igpt_imports_no_torch():
    code = (
        "import time; t = time.perf_counter(); import igpt, sys; print('torch' in sys.modules, time.perf_counter() - t)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == "False"
