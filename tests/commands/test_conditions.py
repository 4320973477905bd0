"""Models that are told classes and transformations, through the real commands."""

import json

import numpy as np
import pytest
import torch

from igpt.cli import main
from tests.modules.test_distaug import module_of, saved


@pytest.fixture(scope="module")
def told(digits_run):
    """A short training on the digits with classes, transformations and dropout."""
    config = digits_run.home / "told.yaml"
    text = digits_run.config.read_text().replace("vocab_size: 17", "vocab_size: 17, dropout: 0.1")
    text = text.replace("learning_rate: 0.01", "learning_rate: 0.01\n    augment: [transpose, jigsaw]\n    classes: 0")
    config.write_text(text)
    assert (
        main(["fit", "--config", str(config), "--runs_dir", str(digits_run.home / "runs"), "--samples.num", "0"]) == 0
    )
    return digits_run.home / "runs" / "told"


def test_a_test_gives_the_accuracy_of_the_likeliest_class_beside_the_loss(told, igpt):
    config = told / "config.yaml"
    assert "classes: 10" in config.read_text()
    code, out, err = igpt("test", "--config", config, "--ckpt", told, "--runs_dir", told.parent)
    assert code == 0, err
    metrics = json.loads((told / "scores.json").read_text())[-1]["metrics"]
    assert 0 < metrics["test/accuracy"] <= 1
    assert f"test accuracy {100 * metrics['test/accuracy']:.1f}" in out
    from igpt import load

    model = load(told, device="cpu", precision="32-true")
    data = model.data()
    images, labels = zip(*data.images("test"), strict=True)
    found = model.class_likelihoods(torch.stack(images)).argmax(1)
    assert np.mean(found == np.array(labels)) == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    rows = np.genfromtxt(told / "likelihood" / "test.csv", delimiter=",", names=True)
    assert rows["nats_per_pixel"].mean() == pytest.approx(metrics["test/loss"], rel=1e-5)


def test_samples_are_of_the_classes_that_are_named(told, igpt, tmp_path):
    shared = ["--ckpt", told, "--accelerator", "cpu", "--precision", "32-true"]
    for name, options in {
        "three": ["--class", 3, "--num", 4],
        "named": ["--classes", "3", "--num", 4, "--guidance", 1],
        "two": ["--class", 3, 5, "--num", 4],
        "guided": ["--class=3", "--num", 4, "--guidance", 50],
        "none": ["--num", 4],
        "zero": ["--class", 3, "--num", 4, "--guidance", 0],
        "completed": ["--class", 3, "--indices", 0, 1, "--num", 2],
    }.items():
        code, _, err = igpt("sample", *shared, *options, "--out", tmp_path / f"{name}.png")
        assert code == 0, err
    tokens = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    np.testing.assert_array_equal(tokens["three"], tokens["named"])
    np.testing.assert_array_equal(tokens["none"], tokens["zero"])
    assert tokens["two"].shape == (8, 64)
    assert tokens["completed"].shape == (2, 2, 64)
    assert not np.array_equal(tokens["guided"], tokens["three"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "cat"], "--class cat: there is no such class; choose from 0, 1, 2"),
        (["--class", 10], "--class 10: there is no such class"),
        (["--guidance", 2], "--guidance 2.0 is towards a class"),
        (["--class", 1, "--guidance", -1], "--guidance -1.0 must be a number of at least 0"),
        (["--class", 1, 2, "--rows", 2], "--class: completions are of one class"),
    ],
)
def test_a_class_that_is_none_and_guidance_without_one_are_a_line(told, igpt, tmp_path, options, message):
    code, _, err = igpt("sample", "--ckpt", told, *options, "--out", tmp_path / "out.png")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_plain_model_is_of_no_class(digits_run, digits_bert_run, igpt, tmp_path):
    for run in (digits_run, digits_bert_run):
        code, _, err = igpt("sample", "--ckpt", run.checkpoint, "--class", 3, "--out", tmp_path / "out.png")
        assert code == 2
        assert "is a model that is told no classes" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_args.classes", 7], "model.init_args.classes is 7 but the data have 10; make them equal"),
        (["--model.init_args.classes", 1], "classes 1 must be at least 2"),
        (["--model.init_args.augment", "[spin]"], "augment: 'spin' is unknown"),
        (["--model.init_args.identity_share", 1.5], "identity_share 1.5 must lie between 0 and 1"),
        (["--model.init_args.transformer.dropout", 1.5], "transformer.dropout 1.5 must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_trained_is_a_line_and_leaves_nothing(told, digits_run, igpt, tmp_path, options, message):
    code, _, err = igpt("fit", "--config", digits_run.home / "told.yaml", "--runs_dir", tmp_path, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_going_on_with_other_families_is_refused(told, digits_run, igpt):
    config = digits_run.home / "told.yaml"
    code, _, err = igpt(
        "fit", "--config", config, "--runs_dir", told.parent, "--ckpt", "last", "--model.init_args.augment", "[flip]"
    )
    assert code == 2
    assert "the checkpoint has transformer augment ['transpose', 'jigsaw'] (now ['flip']); use its config" in err


def test_image_gpt_takes_a_model_that_knows_transformations_and_none_that_is_told_classes(igpt, tmp_path):
    augmented, classes = module_of(augment=["rotate"]), module_of(classes=3)
    path = saved(augmented, tmp_path / "augmented.ckpt")
    assert igpt("export", "--ckpt", path, "--out", tmp_path / "hf")[0] == 0
    from igpt import load

    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    one, other = (load(each, device="cpu", precision="32-true").nll(images) for each in (path, tmp_path / "hf"))
    np.testing.assert_array_equal(one, other)
    path = saved(classes, tmp_path / "classes.ckpt")
    code, _, err = igpt("export", "--ckpt", path, "--out", tmp_path / "no")
    assert code == 2
    assert "is told classes, which ImageGPT cannot be; use --format safetensors" in err
    assert not (tmp_path / "no").exists()
    assert igpt("export", "--ckpt", path, "--out", tmp_path / "plain", "--format", "safetensors")[0] == 0
