"""The everyday path on a system that lacks what only Linux has: every verb, as it is run there.

What is missing is in tests/elsewhere; the rest, igpt's own code first of all, is real.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPO, small_model

VERBS = """
import json, sys
from igpt.cli import main
if __name__ == "__main__":
    for words in json.load(sys.stdin):
        print("==", *words, flush=True)
        code = main(words)
        if code:
            sys.exit(f"exit code {code}")
"""


def elsewhere(code, home, *arguments, **how):
    """Run Python code there; exit code, and all that was printed."""
    path = os.pathsep.join([str(REPO / "tests" / "elsewhere"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"IGPT_ELSEWHERE": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    done = subprocess.run(command, cwd=home, env=environment, timeout=600, **pipes, **how)
    return done.returncode, done.stdout


def config(home):
    """A config of a tiny network, with words that are no ASCII."""
    path = home / "größe.yaml"
    path.write_text(
        f"""{small_model("töne.npy")}
data:
  class_path: igpt_datamodules.Digits
  init_args: {{batch_size: 32, num_workers: 1}}
trainer:
  max_steps: 6
  val_check_interval: 3
  check_val_every_n_epoch: null
  log_every_n_steps: 2
  enable_progress_bar: false
  accelerator: cpu
  devices: 1
  callbacks:
    - class_path: igpt.callbacks.LossGuard
    - class_path: igpt.callbacks.OnlineProbe
      init_args: {{every_n_steps: 3, train_images: 64, val_images: 64}}
samples: {{num: 2, completions: 2}}
checkpoint: {{every_n_train_steps: 2, keep: 1}}
""",
        encoding="utf-8",
    )
    return path.name


@pytest.fixture(scope="module")
def verbs(tmp_path_factory):
    """What running all verbs there printed, and where."""
    home = tmp_path_factory.mktemp("elsewhere")
    fit, last = ["--config", config(home)], "runs/größe/checkpoints/last.ckpt"
    none = ["--data.init_args.num_workers", "0"]
    commands = [
        ["palette", "--data", "Digits", "--colors", "17", "--out", "töne.npy"],
        ["fit", *fit],
        ["fit", *fit, *none, "--trainer.max_steps", "8", "--ckpt_path", "last"],
        ["fit", *fit, *none],  # moves the first aside
        *[[verb, *fit, *none, "--ckpt_path", "last"] for verb in ("validate", "test", "predict")],
        ["probe", "--ckpt", last, "--method", "all", "--epochs", "1", "--data", "Digits", "--labels_per_class", "4"],
        ["probe", "--ckpt", last, "--data", "Digits"],  # on the features that are there
        ["sample", "--ckpt", last, "--num", "2", "--out", "bilder/größe.png"],
        ["surprise", "bilder/größe.png", "--ckpt", last, "--out", "surprise.png"],
        ["tokenize", "--data", "Digits", "--palette", "töne.npy", "--out", "shards", "--workers", "1"],
        ["export", "--ckpt", last, "--out", "exported"],
        ["report", "runs/größe", "--out", "report.html"],
    ]
    code, printed = elsewhere(VERBS, home, input=json.dumps(commands))
    assert code == 0, printed
    return home, printed


def test_a_palette_training_and_samples_run_to_their_ends(tmp_path):
    fit = ["--config", config(tmp_path), "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    commands = [
        ["palette", "--data", "Digits", "--colors", "17", "--out", "töne.npy"],
        ["fit", *fit, "--data.init_args.num_workers", "0", "--trainer.callbacks", "null", "--samples.num", "0",
         "--samples.completions", "0"],
        ["sample", "--ckpt", "runs/größe", "--num", "1", "--out", "bilder/größe.png"],
    ]  # fmt: skip
    code, printed = elsewhere(VERBS, tmp_path, input=json.dumps(commands))
    assert code == 0, printed
    assert "Traceback" not in printed, printed
    assert (tmp_path / "bilder/größe.png").is_file()


@pytest.mark.slow
def test_every_verb_runs_to_its_end(verbs):
    """Slow: the three verbs above stand for the others."""
    home, printed = verbs
    assert "Traceback" not in printed, printed
    written = {"töne.npy", "surprise.npy", "shards/index.json", "exported/README.md", "report.html", "report.md"}
    written |= {f"runs/größe/{name}" for name in ("config.yaml", "scores.json", "probe/probe.json", "result.json")}
    assert not [name for name in written if not (home / name).is_file()]
    last = home / "runs/größe/checkpoints/last.ckpt"
    assert not last.is_symlink()
    assert last.samefile(last.with_name("step=0000006.ckpt"))
    assert "größe" in (home / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_so_do_those_that_start_processes(verbs):
    home, _ = verbs
    overrides = "[trainer.max_steps=2, trainer.val_check_interval=2, trainer.callbacks=null, samples.num=0]"
    commands = [
        ["tokenize", "--data", "Digits", "--palette", "töne.npy", "--out", "more", "--workers", "2"],
        ["tune", "--config", "größe.yaml", "--rates", "0.01,0.003", "--overrides", overrides],
    ]
    code, printed = elsewhere(VERBS, home, input=json.dumps(commands))
    assert code == 0, printed
    assert (home / "more" / "train-00000.npy").read_bytes() == (home / "shards" / "train-00000.npy").read_bytes()
    assert len(json.loads((home / "runs/größe_tune/tune.json").read_text(encoding="utf-8"))["results"]) == 2


LACKING = {
    "import fcntl": "ModuleNotFoundError",
    "import signal; signal.SIGUSR1": "AttributeError",
    "import os; os.fork": "AttributeError",
    "import os; os.kill": "AttributeError",
    "import os; os.symlink('file', 'link')": "OSError",
    "from pathlib import Path; Path('link').symlink_to('file')": "OSError",
    "import os; os.open('.', os.O_RDONLY)": "PermissionError",
    "import os; os.fsync(os.open('file', os.O_RDONLY))": "OSError",
    "from pathlib import Path; Path('file').write_text('')": "AssertionError",
    "from pathlib import Path; Path('file').read_text()": "AssertionError",
    "open('file')": "AssertionError",
    "from pathlib import Path; file = open('file', 'rb'); Path('file').unlink()": "PermissionError",
    "import os; file = open('folder/file', 'rb'); os.rename('folder', 'other')": "PermissionError",
    "import numpy, os; held = numpy.load('a.npy', mmap_mode='r'); os.replace('file', 'a.npy')": "PermissionError",
    "import subprocess; subprocess.run(['true'], preexec_fn=print)": "ValueError",
    "import multiprocessing; multiprocessing.Process(target=lambda: None).start()": "PicklingError",
}
EACH = """
import json, sys
for code in json.load(sys.stdin):
    try:
        exec(compile(code, "/anywhere/igpt/code.py", "exec"), {})
    except BaseException as error:
        print(type(error).__name__)
    else:
        print("nothing")
"""


def test_what_is_missing_there_is_missing_for_igpt_and_its_files(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/file"):
        (tmp_path / name).touch()
    np.save(tmp_path / "a.npy", np.arange(10_000))
    code, printed = elsewhere(EACH, tmp_path, input=json.dumps(list(LACKING)))
    assert code == 0, printed
    assert dict(zip(LACKING, printed.split(), strict=True)) == LACKING
