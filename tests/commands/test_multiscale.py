"""The verbs and the Python API with a model of coarse and fine colours, and with a subscale order."""

import csv
import json

import numpy as np
import pytest
import torch

from igpt import api
from igpt.checkpoints.format import read_checkpoint
from igpt.data import open_picture
from igpt.modules import CoarseToFine, Joint
from tests.datamodules.pictures import picture

TRAINER = """
data:
  class_path: igpt_datamodules.Digits
  init_args: {batch_size: 32}
trainer:
  val_check_interval: 2
  check_val_every_n_epoch: null
  log_every_n_steps: 1
  limit_val_batches: 1
  enable_progress_bar: false
  accelerator: cpu
  precision: 32-true
samples: {num: 1, completions: 1}
checkpoint: {every_n_train_steps: 2}
"""


@pytest.fixture(scope="module")
def coarse(digits_run, tmp_path_factory):
    """Config and folder of a run of four steps, in the order subscale2."""
    from igpt.cli import main

    home = tmp_path_factory.mktemp("coarse")
    config = home / "coarse.yaml"
    network = "{n_layers: 2, d_model: 16, n_heads: 2}"
    config.write_text(f"""
model:
  class_path: igpt.modules.CoarseToFine
  init_args: {{transformer: {network}, palette: {digits_run.palette}, learning_rate: 0.01, coarse: 4, order: subscale2}}
{TRAINER}""")
    assert main(["fit", "--config", str(config), "--runs_dir", str(home), "--trainer.max_steps", "4"]) == 0
    return config, home / "coarse"


def test_a_resumed_run_ends_with_the_same_bits(coarse, igpt, tmp_path):
    config, folder = coarse
    half = folder / "checkpoints" / "step=0000002.ckpt"
    resumed = ("--runs_dir", tmp_path, "--trainer.max_steps", 4, "--ckpt_path", half)
    code, _, err = igpt("fit", "--config", config, *resumed)
    assert code == 0, err
    first, second = (
        read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (folder, tmp_path / "coarse")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    code, _, err = igpt("fit", "--config", config, *resumed, "--model.coarse", 5, "--name", "other")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "coarse 4 (now 5)" in err


def test_a_checkpoint_needs_no_palette_file_and_gives_the_same_likelihoods_as_test(coarse, igpt):
    config, folder = coarse
    code, _, err = igpt("test", "--config", config, "--runs_dir", folder.parent, "--ckpt_path", "last")
    assert code == 0, err
    model = api.load(folder, precision="32-true")
    assert isinstance(model.module, CoarseToFine)
    assert model.module.coarse_of.unique().tolist() == [0, 1, 2, 3]
    test = model.data()
    test.prepare_data()
    images = torch.stack([test.images("test")[index][0] for index in range(20)])
    nats = model.nll([image.permute(1, 2, 0).numpy() for image in images], per_pixel=True)
    assert nats.shape == (20, 8, 8)
    with open(folder / "likelihood" / "test.csv") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose(nats.mean((1, 2)), [float(row["nats_per_pixel"]) for row in rows[:20]], rtol=1e-4)
    loss = json.loads((folder / "scores.json").read_text())[-1]["metrics"]["test/loss"]
    assert np.mean([float(row["nats_per_pixel"]) for row in rows]) == pytest.approx(loss, rel=1e-4)


def test_pictures_are_drawn_and_completed_from_the_small_picture(coarse, igpt, tmp_path):
    _, folder = coarse
    given = tmp_path / "given.png"
    picture(3).save(given)
    out = ("--num", 3, "--out", tmp_path / "out.png")
    code, text, err = igpt("sample", "--ckpt", folder, "--complete", given, "--keep", 0.25, *out)
    assert code == 0, err
    assert "drew 144 pixels of 3 images" in text  # 48 of 64
    tokens = np.load(tmp_path / "out.npy").reshape(3, 8, 8)
    module = api.load(folder).module
    whole = module.palette.encode(open_picture(str(given), 8)[None]).view(8, 8).numpy()
    assert (tokens[:, ::2, ::2] == whole[::2, ::2]).all()
    code, _, err = igpt("sample", "--ckpt", folder, *out)
    assert code == 0, err
    assert np.load(tmp_path / "out.npy").shape == (3, 64)
    code, text, err = igpt("surprise", given, "--ckpt", folder, "--out", tmp_path / "surprise.png")
    assert code == 0, err
    assert np.load(tmp_path / "surprise.npy").shape == (1, 8, 8)


def test_its_features_are_probed_and_its_run_stands_in_a_report(coarse, igpt, tmp_path):
    _, folder = coarse
    code, _, err = igpt("probe", "--ckpt", folder, "--layers", 1, "--grid", 2, "--out", tmp_path / "probe")
    assert code == 0, err
    features = api.load(folder).features([np.zeros((8, 8, 3), np.uint8)], layers=[1], grid=2)
    assert features[1].shape == (1, 64)
    code, _, err = igpt("report", folder, "--out", tmp_path / "report.html")
    assert code == 0, err
    assert "AR coarse to fine" in (tmp_path / "report.md").read_text()


def test_hugging_face_cannot_hold_it_and_safetensors_can(coarse, igpt, tmp_path):
    _, folder = coarse
    ckpt = folder / "checkpoints" / "last.ckpt"
    code, _, err = igpt("export", "--ckpt", ckpt, "--out", tmp_path / "out")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "predicts coarse colours first, which ImageGPT cannot; use --format safetensors" in err
    code, _, err = igpt("export", "--ckpt", ckpt, "--out", tmp_path / "out", "--format", "safetensors")
    assert code == 0, err
    network = api.load(folder).module.transformer
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| parameters | {sum(p.numel() for p in network.parameters()):,} |" in card
    assert "| coarse colours, drawn first | 4 |" in card


def test_it_is_fine_tuned_on_classes(coarse, igpt, tmp_path):
    _, folder = coarse
    config = tmp_path / "joint.yaml"
    config.write_text(
        "model:\n  class_path: igpt.modules.Joint\n"
        f"  init_args: {{pretrained: {folder}/checkpoints/last.ckpt}}\n{TRAINER}"
    )
    code, _, err = igpt("fit", "--config", config, "--runs_dir", tmp_path, "--trainer.max_steps", 2)
    assert code == 0, err
    model = api.load(tmp_path / "joint")
    assert isinstance(model.module, Joint)
    assert model.predict([np.zeros((8, 8, 3), np.uint8)]).probs.shape == (1, 10)


def test_a_side_that_the_order_cannot_interleave_is_one_line(digits_run, igpt, tmp_path):
    size = ("--data.resolution", 9, "--model.transformer.n_positions", 81)
    code, _, err = igpt(
        "fit", "--config", digits_run.config, "--model.order", "subscale2", *size, "--runs_dir", tmp_path
    )
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "order subscale2: 2 does not divide the sides of 9x9 pixels" in err
