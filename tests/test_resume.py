"""A run that was interrupted, however often, ends with the bits of one that was not."""

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from igpt.checkpoints.format import read_checkpoint, step_checkpoints
from igpt.palette import VQShape, VQTokens
from igpt_datamodules import Digits
from tests.stopping import stop

NETWORK = "{n_layers: 1, d_model: 16, n_heads: 2, n_positions: 64, vocab_size: 17"
MODELS = {
    "AR": f"""
  class_path: igpt.modules.Autoregressive
  init_args: {{transformer: {NETWORK}}}, palette: PALETTE, learning_rate: 0.01}}""",
    "augmented": f"""
  class_path: igpt.modules.Autoregressive
  init_args:
    transformer: {NETWORK}, dropout: 0.2}}
    palette: PALETTE
    learning_rate: 0.01
    augment: [rotate, jigsaw]
    classes: 10""",
    "VQ": f"""
  class_path: igpt.modules.Autoregressive
  init_args: {{transformer: {NETWORK.replace("64", "4")}}}, palette: TOKENS, learning_rate: 0.01}}""",
    "BERT": f"""
  class_path: igpt.modules.BERT
  init_args: {{transformer: {NETWORK}, sos: false}}, palette: PALETTE, learning_rate: 0.01}}""",
    "joint": f"""
  class_path: igpt.modules.Joint
  init_args:
    num_classes: 10
    learning_rate: 0.01
    generative:
      class_path: igpt.modules.BERT
      init_args: {{transformer: {NETWORK}, sos: false}}, palette: PALETTE}}""",
}
LOSSES = ("train/loss", "val/loss")


def vq_tokens():
    """An untrained tokeniser whose 17 codes lie among what it encodes digits to; a picture has four tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokens = VQTokens(VQShape(codes=17, width=8, latent=4, blocks=1))
    images = torch.stack([Digits().images("train")[index][0] for index in range(17)])
    tokens.codebook.copy_(tokens.encoder(images.float() / 127.5 - 1)[:, :, 0, 0])
    assert len(tokens.encode(images).unique()) > 8
    return tokens


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    from igpt.cli import main

    home = tmp_path_factory.mktemp("resume")
    assert main(["palette", "--data", "Digits", "--colors", "17", "--out", str(home / "digits.npy")]) == 0
    vq_tokens().save(home / "digits.safetensors")
    for name, model in MODELS.items():
        text = f"""
model: {model.replace("PALETTE", str(home / "digits.npy")).replace("TOKENS", str(home / "digits.safetensors"))}
data: {{class_path: igpt_datamodules.Digits, init_args: {{batch_size: 16, split: {{labels_per_class: 16}}}}}}
trainer:
  max_steps: 24
  val_check_interval: 4
  check_val_every_n_epoch: null
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
  accelerator: cpu
  precision: 32-true
samples: {{num: 0, completions: 0}}
checkpoint: {{every_n_train_steps: 4}}
"""
        (home / f"{name}.yaml").write_text(text)
    return home


@pytest.fixture(scope="module")
def run(home):
    """`run(folder, model, options...)` is `igpt fit` in this process and gives its exit code."""
    from igpt.cli import main

    def fit(folder, model, *options):
        config = ["--config", str(home / f"{model}.yaml"), "--runs_dir", str(home / folder), "--name", model]
        return main(["fit", *config, *map(str, options)])

    return fit


@pytest.fixture(scope="module")
def whole(home, run):
    """The uninterrupted run of a model with so many batches a step, made once."""
    made = {}

    def of(model, accumulate, *options):
        key = (model, accumulate, *options)
        if key not in made:
            folder = f"whole{len(made)}"
            assert run(folder, model, "--trainer.accumulate_grad_batches", accumulate, *options) == 0
            made[key] = home / folder / model
        return made[key]

    return of


def losses(folder):
    """Every loss in the logs: {(name, step): the values written there}."""
    events, found = EventAccumulator(str(folder), {"scalars": 0}, purge_orphaned_data=False), defaultdict(set)
    events.Reload()
    for name in LOSSES:
        for event in events.Scalars(name):
            found[name, event.step].add(event.value)
    return found


def same(one, other):
    """Whether two parts of checkpoints are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_end(cut, whole):
    one, other = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (cut, whole))
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops"):
        assert same(one[part], other[part]), part
    expected = losses(whole)
    assert all(len(values) == 1 and math.isfinite(*values) for values in expected.values())
    assert losses(cut) == expected


# An epoch is 10 batches; with 2 a step it has 5 steps. The moments: in an epoch, at a checkpoint that validation
# follows, in that validation, at the end of an epoch, and once more in the next.
MOMENTS = [(3, "SIGTERM", "batch"), (4, "SIGUSR1", "validation"), (9, "kill", "batch"), (10, "SIGTERM", "batch"),
           (19, "SIGUSR1", "batch"), (20, "kill", "validation")]  # fmt: skip


QUICK = [("AR", 2, 1), ("BERT", 0, 2), ("joint", 0, 1)]  # every model, loader processes, accumulation; the rest is slow
SLOW = [("augmented", 0, 2), ("AR", 0, 1), ("AR", 0, 2), ("AR", 2, 2), ("BERT", 0, 1), ("BERT", 2, 1), ("BERT", 2, 2),
        ("joint", 0, 2), ("joint", 2, 1), ("joint", 2, 2)]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "workers", "accumulate"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_resumed_run_ends_with_the_same_bits(home, run, whole, model, workers, accumulate):
    folder = f"cut_{workers}_{accumulate}"
    options = ["--trainer.accumulate_grad_batches", accumulate, "--data.init_args.num_workers", workers]
    for moment in MOMENTS:
        code = run(folder, model, *options, "--ckpt_path", "last", *stop(*moment))
        assert code == (9 if "kill" in moment else 75)
    assert run(folder, model, *options, "--ckpt_path", "last") == 0
    assert_same_end(home / folder / model, whole(model, accumulate))


def test_a_resumed_run_on_vq_tokens_ends_with_the_same_bits(home, run, whole):
    for moment in MOMENTS[1:4]:
        assert run("cut", "VQ", "--ckpt_path", "last", *stop(*moment)) == (9 if "kill" in moment else 75)
    assert run("cut", "VQ", "--ckpt_path", "last") == 0
    assert_same_end(home / "cut" / "VQ", whole("VQ", 1))


def test_a_run_that_ended_goes_on_with_the_numbers_of_its_steps(home, run):
    assert run("longer", "AR", "--trainer.max_steps", 8) == 0  # validation is due at 8, and has taken place
    assert run("longer", "AR", "--trainer.max_steps", 13, "--ckpt_path", "last") == 0
    found = losses(home / "longer" / "AR")
    assert {step for name, step in found if name == "train/loss"} == set(range(13))
    assert {step for name, step in found if name == "val/loss"} == {3, 7, 11}
    assert all(len(values) == 1 for values in found.values())
    content = read_checkpoint(home / "longer" / "AR" / "checkpoints" / "last.ckpt")
    assert content["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 1, "images": 48}]


def test_validation_by_epochs_and_early_stopping_take_place_where_they_would_have(home, run, whole):
    stopping = json.dumps({"class_path": "lightning.pytorch.callbacks.EarlyStopping",
                           "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 1.0}})  # fmt: skip
    guard = json.dumps({"class_path": "igpt.callbacks.LossGuard", "init_args": {"every_n_steps": 7, "margin": 9.0}})
    options = ["--trainer.check_val_every_n_epoch", 1, "--trainer.val_check_interval", 1.0,
               "--trainer.callbacks+", stopping, "--trainer.callbacks+", guard]  # fmt: skip
    for moment in ((8, "kill", "batch"), (10, "SIGTERM", "validation"), (20, "kill", "validation")):
        code = run("early", "AR", *options, "--ckpt_path", "last", *stop(*moment))
        assert code == (9 if "kill" in moment else 75)
    assert run("early", "AR", *options, "--ckpt_path", "last") == 0
    assert_same_end(home / "early" / "AR", whole("AR", 1, *options))
    results = [
        json.loads((path / "result.json").read_text()) for path in (home / "early" / "AR", whole("AR", 1, *options))
    ]
    assert results[0] == results[1]
    assert results[0]["steps"] == 20 < 24


def test_going_on_with_other_workers_changes_nothing(home, run, whole):
    assert run("changed", "BERT", *stop(13), "--data.init_args.num_workers", 2) == 75
    assert run("changed", "BERT", "--ckpt_path", "last", "--data.init_args.num_workers", 1) == 0
    assert_same_end(home / "changed" / "BERT", whole("BERT", 1))


LONG = """
trainer: {max_steps: 1500, val_check_interval: 50, log_every_n_steps: 10}
checkpoint: {every_n_train_steps: 5, keep: 3}
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["BERT"])
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_bits(home, model):
    (home / "long.yaml").write_text(LONG)
    seed = time.time_ns() % 10**6
    rng = random.Random(seed)

    def command(folder):
        config = ["--config", home / f"{model}.yaml", "--config", home / "long.yaml"]
        options = [*config, "--runs_dir", home / folder, "--name", model, "--ckpt_path", "last"]
        return [sys.executable, "-m", "igpt", "fit", *map(str, options), "--data.init_args.num_workers", "2"]

    def newest(folder):
        return next(iter(step_checkpoints(home / folder / model / "checkpoints")), 0)

    subprocess.run(command("long_whole"), check=True, capture_output=True, cwd=home)
    kills = 0
    while kills < 20:
        begun, delay = newest("long_cut"), rng.uniform(0, 0.05)
        until = begun + 5 * rng.randint(1, 10)  # in steps: how long they take differs from machine to machine
        with subprocess.Popen(
            command("long_cut"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=home
        ) as process:
            while newest("long_cut") < until and process.poll() is None:
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
        assert process.returncode in (-signal.SIGKILL, 0), process.stderr
        kills += process.returncode != 0
        print(f"seed {seed}, kill {kills}: {delay:.3f} s after step {begun}, at step {newest('long_cut')}")
        assert newest("long_cut") < 1500, "the run was over before 20 kills"
    subprocess.run(command("long_cut"), check=True, capture_output=True, cwd=home)
    assert_same_end(home / "long_cut" / model, home / "long_whole" / model)
