"""Runs of several real processes on the CPU, started as a user starts them."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPO

NETWORK = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
OVERLAY = ["--config", str(REPO / "configs" / "scale" / "8gpu_fsdp.yaml")]
OF_TWO = ["--trainer.strategy.init_args.data_parallel_size", "2"]
STRATEGIES = {
    "ddp": ["--trainer.strategy", "ddp"],
    "parts": [*OVERLAY, *OF_TWO],
    "sharded": [*OVERLAY, *OF_TWO, "--trainer.strategy.init_args.save_distributed_checkpoint", "false"],
}


def model_of(kind: str, palette: Path) -> dict:
    """The `model` part of a config: AR, BERT or Joint on a BERT from scratch."""
    causal = kind == "AR"
    core = {
        "class_path": f"igpt.modules.{'Autoregressive' if causal else 'BERT'}",
        "init_args": {"transformer": NETWORK | {"sos": causal}, "palette": str(palette), "learning_rate": 0.01},
    }
    if kind != "joint":
        return core
    return {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 10, "generative": core}}


def write_config(home: Path, kind: str) -> None:
    """`KIND.yaml`: 20 steps of 32 images, float32, every loss logged."""
    config = {
        "model": model_of(kind, home / "digits.npy"),
        "data": {
            "class_path": "igpt_datamodules.Digits",
            "init_args": {"batch_size": 32, "split": {"labels_per_class": 16}},
        },
        "trainer": {
            "max_steps": 20,
            "val_check_interval": 5,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "precision": "32-true",
        },
        "samples": {"num": 0, "completions": 0},
        "checkpoint": {"every_n_train_steps": 5},
    }
    (home / f"{kind}.yaml").write_text(yaml.safe_dump(config))


def fit_command(home: Path, folder: str, kind: str, strategy: str | None, *options: object) -> list[str]:
    """`igpt fit` with one process, or with two that share its batch."""
    command = [sys.executable, "-m", "igpt", "fit", "--config", str(home / f"{kind}.yaml"), "--name", kind]
    command += ["--runs_dir", str(home / folder)]
    shared = [*STRATEGIES[strategy], "--data.init_args.batch_size", 16] if strategy else []
    devices = 2 if strategy else 1
    return [*command, *map(str, (*shared, "--trainer.devices", devices, "--trainer.accelerator", "cpu", *options))]


def environment() -> dict[str, str]:
    """This process' own, for processes that share two cores and find the callbacks of `tests.stopping`."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(command: list[str], home: Path) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = subprocess.run(
        command, cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    return done.returncode, done.stdout


def losses(folder: Path, name: str = "train/loss") -> dict[int, set[float]]:
    """Every value in the logs, by its step."""
    events, found = EventAccumulator(str(folder), {"scalars": 0}, purge_orphaned_data=False), defaultdict(set)
    events.Reload()
    for event in events.Scalars(name):
        found[event.step].add(event.value)
    return found
