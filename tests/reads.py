"""A callback that counts what a training step reads from the device, put into a run through `--trainer.callbacks`."""

import json
from collections import Counter

import lightning.pytorch as pl
from torch.utils._python_dispatch import TorchDispatchMode

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


class CountReads(pl.Callback):
    """Counts over whole steps, the batch of the next one included, and writes the figures to a file.

    Args:
        out: file of `{"steps": [...], "reads": {...}, "at": {...}, "calls": n}`: the steps between log points, what
            these read, what the others read, and how many calls were looked at.
        every: the trainer's `log_every_n_steps`.
    """

    def __init__(self, out: str, every: int) -> None:
        self.out, self.every = out, every
        self.between, self.at = Counting(), Counting()
        self.steps: list[int] = []
        self.running: Counting | None = None

    def _switch(self, mode: Counting | None) -> None:
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
