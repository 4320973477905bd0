"""Families over two processes: every one of them has the same weights, and what they keep is of both."""

import json
import sys

import lightning.pytorch as pl
import pytest
import torch

from igpt.families import Glow
from tests.families.conftest import MODELS, TRAINER
from tests.processes import run

OWN = ("running_mean", "running_var", "num_batches_tracked")  # of each process, until the first one's go round


class Keep(pl.Callback):
    """Saves what each process ends with, and the images that it saw first."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            torch.save(batch[0], f"first{trainer.global_rank}.pt")
            torch.save(pl_module.state_dict(), f"begin{trainer.global_rank}.pt")
        if trainer.global_step == 1:
            torch.save(pl_module.state_dict(), f"second{trainer.global_rank}.pt")

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), f"end{trainer.global_rank}.pt")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """`ended(name)`: the folder in which two processes trained a family for six steps."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = home = tmp_path_factory.mktemp(name)
            model = MODELS[name].replace("queue_size: 48", "queue_size: 100")  # more than both bring at once
            (home / "c.yaml").write_text(f"model: {model}{TRAINER}")
            kept = json.dumps({"class_path": "tests.families.test_processes.Keep"})
            command = [sys.executable, "-m", "igpt", "fit", "--config", "c.yaml", "--trainer.strategy", "ddp",
                       "--trainer.devices", "2", "--trainer.max_steps", "6", "--trainer.callbacks+", kept]  # fmt: skip
            code, printed = run(command, home)
            assert code == 0, printed
        return made[name]

    return of


def states(home, when):
    return [torch.load(home / f"{when}{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow  # two processes that import everything, for each
@pytest.mark.parametrize("name", ["MoCo", "Glow", "SimCLR", "CPC"])
def test_both_processes_end_with_the_same_weights(ended, name):
    one, other = states(ended(name), "end")
    shared = [key for key in one if not key.endswith(OWN)]
    assert len(shared) > 5
    assert [key for key in shared if not torch.equal(one[key], other[key])] == []
    first, second = states(ended(name), "first")
    assert not torch.equal(first, second)  # though each saw images of its own


@pytest.mark.slow
def test_the_queue_holds_the_keys_of_both(ended):
    begin, end = (states(ended("MoCo"), when)[0] for when in ("second", "end"))
    assert int(begin["place"]) == 2 * 32
    assert int(end["place"]) == (6 * 2 * 32) % 100


@pytest.mark.slow
def test_norms_are_fitted_to_the_images_of_both(ended):
    module = Glow(resolution=8, couplings=2, hidden=8)
    module.load_state_dict(states(ended("Glow"), "begin")[0])
    module.fit_norms(torch.cat(states(ended("Glow"), "first")))
    after = states(ended("Glow"), "second")[0]
    fitted = [key for key in after if key.endswith((".s", ".t"))]
    assert fitted
    for key in fitted:
        torch.testing.assert_close(after[key], module.state_dict()[key], rtol=0, atol=0.003)  # and moved by one step
    assert max(float(after[key].abs().max()) for key in fitted) > 0.05
