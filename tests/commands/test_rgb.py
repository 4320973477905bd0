"""Bits per dimension of RGB on the command line and in Python: through the palette, and of a model of bytes."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from igpt import api
from igpt.checkpoints.format import read_checkpoint
from igpt.data import open_picture
from igpt.modules import ByteAutoregressive
from igpt.palette import Palette, cell_sizes
from igpt.runs.checks import check_rgb
from igpt.system import UserError
from igpt_datamodules import TokenShards
from tests.datamodules.pictures import picture

LEARNED, UNIFORM = "bits_per_dim_learned", "bits_per_dim_uniform"


@pytest.fixture(scope="module")
def scored(digits_run):
    """Folder of a run of `igpt test --rgb`."""
    from igpt.cli import main

    words = ["--config", digits_run.config, "--runs_dir", digits_run.home / "rgb", "--ckpt_path", digits_run.checkpoint]
    assert main(["test", *map(str, words), "--rgb"]) == 0
    return digits_run.home / "rgb" / "mini"


def test_rgb_adds_the_bits_of_the_colours_within_their_cells(scored, digits_run):
    score = json.loads((scored / "scores.json").read_text())[-1]
    told, metrics = score["likelihood"], score["metrics"]
    palette = Palette.load(digits_run.palette)
    logs = np.log2(cell_sizes(palette.table.numpy(), 17))
    data = api.load(digits_run.folder).data()
    data.prepare_data()
    tokens = torch.cat([palette.encode(images) for images, _ in data.loader("test")]).numpy()
    assert told[UNIFORM] == pytest.approx((told["mean_bits"] + logs[tokens].mean()) / 3, rel=1e-6)
    # Each grey of the digits is the only colour of its cell that there is: nearly nothing is to be said within it.
    assert told["mean_bits"] / 3 < told[LEARNED] < told["mean_bits"] / 3 + 1e-4
    for name in (LEARNED, UNIFORM):
        assert metrics[f"test/{name}"] == pytest.approx(told[name], rel=1e-5)
    with open(scored / "likelihood" / "test.csv") as file:
        rows = list(csv.DictReader(file))
    of_tokens = np.array([float(row["bits_per_pixel"]) for row in rows])
    np.testing.assert_allclose([float(row[UNIFORM]) for row in rows], (of_tokens + logs[tokens].mean(1)) / 3, rtol=1e-6)
    assert np.mean([float(row[LEARNED]) for row in rows]) == pytest.approx(told[LEARNED], rel=1e-6)


def test_the_report_and_python_tell_it_too(scored, digits_run, igpt, tmp_path):
    told = json.loads((scored / "scores.json").read_text())[-1]["likelihood"]
    folder = tmp_path / "run"
    folder.mkdir()
    for name, source in {"config.yaml": digits_run.folder, "scores.json": scored}.items():
        (folder / name).write_bytes((source / name).read_bytes())
    code, _, err = igpt("report", folder, "--out", tmp_path / "report.html")
    assert code == 0, err
    assert f"{told[LEARNED]:.4f} (uniform cells {told[UNIFORM]:.4f})" in (tmp_path / "report.md").read_text()
    model = api.load(digits_run.folder, precision="32-true")
    images = [image for image, _ in (model.data().images("test")[index] for index in range(20))]
    with open(scored / "likelihood" / "test.csv") as file:
        expected = [float(row[UNIFORM]) for row in list(csv.DictReader(file))[:20]]
    np.testing.assert_allclose(model.nll(images, rgb=True) / (3 * 64 * math.log(2)), expected, rtol=1e-5)
    pixels = model.nll(images, rgb=True, per_pixel=True)
    np.testing.assert_allclose(pixels.sum((1, 2)), model.nll(images, rgb=True), rtol=1e-5)


def test_without_exact_likelihood_or_rgb_it_is_one_line(digits_run, digits_bert_run, bytes_run, igpt, tmp_path):
    folder = ("--runs_dir", tmp_path)
    bert = ("--config", digits_bert_run.config, "--ckpt_path", digits_bert_run.checkpoint)
    in_bytes = ("--config", bytes_run[0], "--ckpt_path", bytes_run[1] / "checkpoints" / "last.ckpt")
    for words, expected in {
        bert: "--rgb: BERT gives images no exact likelihood, as only AR does; leave --rgb out",
        in_bytes: "--rgb: ByteAutoregressive predicts RGB values itself and tells bits_per_dim anyway; leave --rgb out",
    }.items():
        code, _, err = igpt("test", *words, *folder, "--rgb")
        assert (code, err.strip()) == (2, f"igpt test: {expected}")
    code, _, err = igpt("fit", "--config", digits_run.config, *folder, "--rgb")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "--rgb is no option" in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="BERT gives images no exact likelihood, as only AR does; leave rgb out"):
        api.load(digits_bert_run.folder).nll(np.zeros((8, 8, 3), np.uint8), rgb=True)


def test_images_of_token_shards_have_no_rgb_to_tell_of(digits_run):
    class Shards(TokenShards):
        palette_sha256 = "0" * 64

        def __init__(self):
            pass

    with pytest.raises(UserError, match="--rgb: the images of Shards have the colours of a palette alone"):
        check_rgb(api.load(digits_run.folder).module, Shards())


CONFIG = """
model:
  class_path: igpt.modules.ByteAutoregressive
  init_args: {transformer: {n_layers: 2, d_model: 16, n_heads: 2}, learning_rate: 0.01}
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
def bytes_run(tmp_path_factory):
    """Config and folder of a run of four steps of a model of bytes."""
    from igpt.cli import main

    home = tmp_path_factory.mktemp("bytes")
    config = home / "bytes.yaml"
    config.write_text(CONFIG)
    assert main(["fit", "--config", str(config), "--runs_dir", str(home), "--trainer.max_steps", "4"]) == 0
    return config, home / "bytes"


def test_a_resumed_run_of_bytes_ends_with_the_same_bits(bytes_run, igpt, tmp_path):
    config, folder = bytes_run
    half = folder / "checkpoints" / "step=0000002.ckpt"
    resumed = ("--runs_dir", tmp_path, "--trainer.max_steps", 4, "--ckpt_path", half)
    code, _, err = igpt("fit", "--config", config, *resumed)
    assert code == 0, err
    first, second = (
        read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (folder, tmp_path / "bytes")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_bits_per_dimension_of_bytes_are_tested_reported_and_a_third_of_those_per_pixel(bytes_run, igpt, tmp_path):
    config, folder = bytes_run
    words = ("--config", config, "--runs_dir", folder.parent, "--ckpt_path", "last")
    code, out, err = igpt("test", *words, "--trainer.limit_test_batches", 2)
    assert code == 0, err
    assert "bits of RGB values" in out
    score = json.loads((folder / "scores.json").read_text())[-1]
    told, metrics = score["likelihood"], score["metrics"]
    assert told["bits_per_dim"] == pytest.approx(told["mean_bits"] / 3, rel=1e-6)
    assert metrics["test/bits_per_dim"] == pytest.approx(told["bits_per_dim"], rel=1e-5)
    assert metrics["test/bits_per_pixel"] == pytest.approx(3 * told["bits_per_dim"], rel=1e-5)
    model = api.load(folder, precision="32-true")
    assert isinstance(model.module, ByteAutoregressive)
    assert "256 values a channel" in repr(model)
    images = [model.data().images("test")[index][0] for index in range(20)]
    with open(folder / "likelihood" / "test.csv") as file:
        expected = [float(row["bits_per_dim"]) for row in list(csv.DictReader(file))[:20]]
    nats = model.nll(images)
    np.testing.assert_allclose(nats / (3 * 64 * math.log(2)), expected, rtol=1e-4)
    np.testing.assert_array_equal(model.nll(images, rgb=True), nats)
    with pytest.raises(UserError, match="palette: ByteAutoregressive predicts RGB values and has none"):
        model.palette.encode(images)
    code, _, err = igpt("report", folder, "--out", tmp_path / "report.html")
    assert code == 0, err
    assert "AR of bytes" in (tmp_path / "report.md").read_text()


def test_pictures_of_bytes_are_drawn_completed_and_their_features_and_surprise_taken(bytes_run, igpt, tmp_path):
    _, folder = bytes_run
    given, out = tmp_path / "given.png", tmp_path / "out.png"
    picture(3).save(given)
    code, text, err = igpt("sample", "--ckpt", folder, "--complete", given, "--num", 2, "--out", out)
    assert code == 0, err
    assert "drew 64 pixels of 2 images" in text
    colors = np.load(tmp_path / "out.npy").reshape(2, 64)
    whole = open_picture(str(given), 8).flatten(1).numpy().astype(np.int64)
    assert (colors[:, :32] == (whole[0] << 16 | whole[1] << 8 | whole[2])[:32]).all()
    code, _, err = igpt("sample", "--ckpt", folder, "--num", 2, "--out", out)
    assert code == 0, err
    assert np.load(tmp_path / "out.npy").shape == (2, 64)
    code, _, err = igpt("surprise", given, "--ckpt", folder, "--out", tmp_path / "surprise.png")
    assert code == 0, err
    assert np.load(tmp_path / "surprise.npy").shape == (1, 8, 8)
    assert api.load(folder).features([given], layers=[1], grid=2)[1].shape == (1, 64)


def test_hugging_face_cannot_hold_bytes_and_safetensors_can(bytes_run, igpt, tmp_path):
    ckpt = bytes_run[1] / "checkpoints" / "last.ckpt"
    code, _, err = igpt("export", "--ckpt", ckpt, "--out", tmp_path / "out")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "predicts RGB values, not the colours of a palette; use --format safetensors" in err
    code, _, err = igpt("export", "--ckpt", ckpt, "--out", tmp_path / "out", "--format", "safetensors")
    assert code == 0, err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "A transformer over RGB values" in card
    assert "| values a channel | 256 |" in card
