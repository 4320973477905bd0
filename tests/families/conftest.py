"""Short real runs of the families on the digits, made by the command."""

import pytest

from igpt.cli import main

TRAINER = """
data: {class_path: igpt_datamodules.Digits, init_args: {batch_size: 32, split: {labels_per_class: 16}}}
trainer:
  max_steps: 12
  val_check_interval: 4
  check_val_every_n_epoch: null
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
  accelerator: cpu
  precision: 32-true
samples: {num: 4}
checkpoint: {every_n_train_steps: 4}
"""
MODELS = {
    "VAE": "{class_path: igpt.families.VAE, init_args: {resolution: 8, width: 8, latent: 4, free_bits: 0.1}}",
    "Flow": "{class_path: igpt.families.Flow, init_args: {resolution: 8, couplings: 2, hidden: 8}}",
    "SimCLR": "{class_path: igpt.families.SimCLR, init_args: {resolution: 8, width: 4, projection: 8, mirror: false}}",
    "CPC": "{class_path: igpt.families.CPC, init_args: {resolution: 8, patch: 4, stride: 1, width: 4, farthest: 3}}",
    "MoCo": "{class_path: igpt.families.MoCo, init_args: {resolution: 8, width: 4, projection: 8, queue_size: 48}}",
    "MAE": "{class_path: igpt.families.MAE, init_args: {resolution: 8, patch: 2, width: 8, depth: 1, heads: 2}}",
    "PixelCNN": "{class_path: igpt.families.PixelCNN, init_args: {resolution: 8, width: 12, depth: 2, levels: 16}}",
    "Glow": "{class_path: igpt.families.Glow, init_args: {resolution: 8, couplings: 2, hidden: 8}}",
}


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """`fit("VAE", runs, options...)` is `igpt fit` in this process and gives its exit code."""
    home = tmp_path_factory.mktemp("families")

    def run(name, runs, *options):
        (home / f"{name}.yaml").write_text(f"model: {MODELS[name]}{TRAINER}")
        return main(["fit", "--config", str(home / f"{name}.yaml"), "--runs_dir", str(runs), *map(str, options)])

    return run


@pytest.fixture(scope="session")
def whole(fit, tmp_path_factory):
    """The folder of a family's uninterrupted run, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole")
            assert fit(name, made[name]) == 0
        return made[name] / name

    return of


@pytest.fixture
def vae_run(whole):
    return whole("VAE")
