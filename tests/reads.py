"""Runs whose training steps are watched: what they read from the device, and where they wait for it."""

import json
import warnings
from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

EVERY = 6  # steps from one log point to the next

READS = {  # what waits for a GPU, since the value of a tensor decides what follows; on a CPU they are the same calls
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::_unique2",
    "aten::repeat_interleave.Tensor",
}


class Counting(TorchDispatchMode):
    """Counts the calls that read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        if func.name() in READS or func.name().partition(".")[0] in READS:
            self.found[func.name()] += 1
        return func(*args, **(kwargs or {}))


class Waiting:
    """Counts where CUDA was waited for, by file and line, as PyTorch itself notices it."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.calls = 0

    def __enter__(self):
        self.catching = warnings.catch_warnings(record=True)
        self.caught = self.catching.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def __exit__(self, *_):
        torch.cuda.set_sync_debug_mode("default")
        self.catching.__exit__()
        for one in self.caught:
            self.found[f"{one.filename}:{one.lineno} {one.message}"] += 1


class CountReads(pl.Callback):
    """Counts over whole steps, the batch of the next one included, and writes the figures to a file.

    Args:
        out: file of `{"steps": [...], "reads": {...}, "at": {...}, "calls": n}`: the steps between log points, what
            these read, what the others read, and how many calls were looked at.
        every: the trainer's `log_every_n_steps`.
        waits: count where CUDA is waited for, in place of reads; `calls` is then 0.
    """

    def __init__(self, out: str, every: int, waits: bool = False) -> None:
        self.out, self.every = out, every
        self.between, self.at = (Waiting(), Waiting()) if waits else (Counting(), Counting())
        self.steps: list[int] = []
        self.running: Counting | Waiting | None = None

    def _switch(self, mode: Counting | Waiting | None) -> None:
        if self.running is not None:
            self.running.__exit__(None, None, None)
        self.running = mode
        if mode is not None:
            mode.__enter__()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Change over at the start of the steps that log, and of those that follow."""
        step = trainer.global_step + 1
        if step < self.every:
            return
        logs = step % self.every == 0
        if logs or step % self.every == 1:
            self._switch(self.at if logs else self.between)
        if not logs and step not in self.steps:
            self.steps.append(step)

    def on_train_end(self, trainer, pl_module):
        """Write what was found."""
        self._switch(None)
        found = {"steps": self.steps, "reads": self.between.found, "at": self.at.found, "calls": self.between.calls}
        with open(self.out, "w") as file:
            json.dump(found, file)


def model_of(kind, palette):
    core = {
        "class_path": f"igpt.modules.{'Autoregressive' if kind == 'AR' else 'BERT'}",
        "init_args": {
            "transformer": {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
            | {"sos": kind == "AR"},
            "palette": str(palette),
        },
    }
    if kind != "joint":
        return core
    return {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 10, "generative": core}}


def watched_run(igpt, palette: Path, folder: Path, kind: str, *options: object, waits: bool = False):
    """A run of 25 steps of `kind` ("AR", "BERT" or "joint"), all within an epoch.

    At the beginning of an epoch PyTorch's loader reads a random number, which lies on the CPU.

    Returns:
        What `CountReads` found; the steps of each logged value; what the run printed.
    """
    counted = {"out": str(folder / "reads.json"), "every": EVERY, "waits": waits}
    counting = {"class_path": "tests.reads.CountReads", "init_args": counted}
    guard = {"class_path": "igpt.callbacks.LossGuard"}
    code, out, err = igpt(
        "fit", "--model", json.dumps(model_of(kind, palette)), "--data", "Digits",
        "--data.init_args.batch_size", 16, "--trainer.callbacks", json.dumps([counting, guard]),
        "--trainer.max_steps", 25, "--trainer.log_every_n_steps", EVERY, "--trainer.limit_val_batches", 0,
        "--trainer.accelerator", "cpu", "--checkpoint.every_n_train_steps", EVERY,
        "--runs_dir", folder, "--name", "run", *options,
    )  # fmt: skip
    assert code == 0, err
    events = EventAccumulator(str(folder / "run"))
    events.Reload()
    logged = {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return json.loads((folder / "reads.json").read_text()), logged, out
