"""Files in the current folder are never imported, whatever they are called, by no process of any verb."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

OTHERS = (
    "torch",
    "numpy",
    "lightning",
    "jsonargparse",
    "yaml",
    "PIL",
    "igpt_datamodules",
    "filelock",
    "faiss",
    "sklearn",
)
SPAWN = "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"
SCRIPT = [str(Path(sys.executable).with_name("igpt"))]
MODULE = [sys.executable, "-m", "igpt"]


def imported_by_python_itself(folder):
    """What `python -m` imports from the current folder before the module that it runs has begun."""
    (folder / "probe.py").write_text("import sys\nprint(*sys.modules)\n")
    return set(
        subprocess.run([sys.executable, "-m", "probe"], cwd=folder, capture_output=True, text=True).stdout.split()
    )


@pytest.fixture
def igpt_there(tmp_path, digits_run):
    """Run a command where every module of the standard library and others lie about; nothing of them is executed."""
    folder, mark, site = tmp_path / "here", tmp_path / "executed", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(SPAWN)
    for name in {*sys.stdlib_module_names, *OTHERS} - imported_by_python_itself(tmp_path):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write(__name__ + ' ')\n")
    path = os.pathsep.join([str(site), str(REPO / "src"), str(REPO / "datamodules")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def command(start, *words):
        done = subprocess.run(
            [*start, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        executed = mark.read_text() if mark.exists() else ""
        assert not executed, executed
        assert done.returncode == 0, done.stderr
        return done.stdout

    return command


@pytest.mark.parametrize("start", [MODULE, SCRIPT], ids=["module", "script"])
def test_help_imports_nothing_from_it(igpt_there, start):
    assert "usage" in igpt_there(start, "--help")


MORE = ", trainer.devices=2, trainer.strategy=ddp, data.init_args.num_workers=1"


@pytest.mark.parametrize(
    "more", ["", pytest.param(MORE, marks=pytest.mark.slow)], ids=["alone", "and processes of theirs"]
)
def test_neither_do_the_runs_of_tune(igpt_there, digits_run, more):
    """Slow: two processes of one run and their loaders, which are started in the environment of the quick one."""
    overrides = "trainer.max_steps=1, trainer.val_check_interval=1, samples.num=0, samples.completions=0"
    overrides = f"[{overrides}, trainer.limit_val_batches=1{more}]"
    printed = igpt_there(MODULE, "tune", "--config", digits_run.config, "--rates", "0.01", "--overrides", overrides)
    assert "chose learning rate 0.01" in printed


@pytest.mark.slow
def test_neither_do_the_processes_of_tokenize(igpt_there, digits_run):
    """Slow: they are spawned like the loaders above."""
    words = ["--palette", digits_run.palette, "--out", "shards", "--workers", 2]
    igpt_there(SCRIPT, "tokenize", "--data", "Digits", *words)
